"""Refuses what a config says and nothing would read, before time is lost on a run that is not the one asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_sparse_rnn.runs.old_configs import MOVED
from lightning_sparse_rnn.utilities.checks import check_flags, check_whole

__all__ = ["READ", "check_config", "near"]

# Options of the Trainer that are true or false.
_FLAGS = ("barebones", "benchmark", "detect_anomaly", "enable_model_summary", "enable_progress_bar", "inference_mode")
#: The groups and values that a run reads.
READ = (
    "data",
    "model",
    "method",
    "optimizer",
    "callbacks",
    "trainer",
    "logger",
    "chosen",
    "seed",
    "matmul_precision",
    "compact_checkpoints",
    "sparsity",
    "prune_rate",
    "initial_scale",
    "init_from",
    "output",
    "name",
)
# What a run itself gives its Trainer, and where the command line says it.
_OF_THE_RUN = {
    "callbacks": "Add one as +callbacks.NAME._target_=ITS.CLASS, with its options as +callbacks.NAME.OPTION=VALUE.",
    "logger": "Choose one with logger=csv or logger=tensorboard, or give its class: +logger._target_=ITS.CLASS.",
    "default_root_dir": "Say where runs go with output=FOLDER.",
}
_DENSE = ("sparsity", "weights_of_sparsity")


def check_config(config: DictConfig) -> None:
    """Make sure that all of a run's config is read by something.

    Keys that other values refer to (``${key}``) are.

    Raises:
        ValueError: there is a key that nothing reads, or a group that is not what it should be.
    """
    written = OmegaConf.to_yaml(config)
    for name in map(str, config):
        if name not in READ and f"${{{name}" not in written:
            raise ValueError(f"Nothing reads {name}.{near(name, [*READ, *MOVED])}")
    _check_values(config)
    _check_ends_with_test(config.trainer)
    for name, instead in _OF_THE_RUN.items():
        if name in config.trainer:
            raise ValueError(f"Expected no trainer.{name}: a run makes its own. {instead}")
    _check_callbacks(OmegaConf.to_container(config)["callbacks"])  # type: ignore[index, call-overload]
    _check_method(config.method)
    logger = config.logger
    if logger and "_target_" not in logger and not all(isinstance(each, DictConfig) for each in logger.values()):
        raise ValueError(f"Expected a logger with a _target_, got {', '.join(map(str, logger))} alone.")


def near(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names what may have been meant by ``name``; empty if nothing is near."""
    found = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(found)}?" if found else ""


def _check_values(config: DictConfig) -> None:
    """Name the value itself where Lightning and torch, much later, would speak of something else."""
    trainer = config.trainer
    whole = {
        "seed": (config.seed, 0),
        "trainer.max_epochs": (trainer.get("max_epochs"), -1),
        "trainer.check_val_every_n_epoch": (trainer.get("check_val_every_n_epoch"), 1),
    }
    for name, (given, least) in whole.items():
        if given is not None:
            check_whole(least, **{name: given})
    clip = trainer.get("gradient_clip_val")
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float) or not clip >= 0):
        raise ValueError(f"Expected trainer.gradient_clip_val of at least 0 (0: no limit), got {clip!r}.")
    time = trainer.get("max_time")
    if time is not None and not isinstance(time, str | DictConfig):
        raise ValueError(
            f"Expected trainer.max_time as DD:HH:MM:SS, or as a dict such as {{minutes: 90}}, got {time!r}."
        )
    whole_windows = trainer.get("accumulate_grad_batches")
    if whole_windows is not None:
        check_whole(**{"trainer.accumulate_grad_batches": whole_windows})
    flags = {f"trainer.{name}": trainer[name] for name in _FLAGS if trainer.get(name) is not None}
    check_flags(compact_checkpoints=config.compact_checkpoints, **flags)


def _check_ends_with_test(trainer: DictConfig) -> None:
    """Raise where a run would train to its end and then have no best weights to test, or no test."""
    if trainer.get("fast_dev_run"):
        raise ValueError(
            "Expected no trainer.fast_dev_run: it keeps no weights that could be tested. For a quick look: "
            "trainer.max_epochs=1 ++trainer.limit_train_batches=2 ++trainer.limit_val_batches=2."
        )
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        if trainer.get(name) == 0:
            raise ValueError(
                f"Expected trainer.{name} of more than 0, got {trainer[name]}: a run trains, and ends with the test of "
                "its best weights. Leave that out."
            )
    if trainer.get("max_epochs") == 0:
        raise ValueError("Expected trainer.max_epochs of at least 1, or of -1 for a run without that limit, got 0.")


def _check_callbacks(callbacks: Any) -> None:
    if not isinstance(callbacks, dict):
        raise ValueError(f"Expected callbacks by name, got {callbacks!r}. {_OF_THE_RUN['callbacks']}")
    for name, given in callbacks.items():
        if given is not None and not (isinstance(given, dict) and "_target_" in given):
            raise ValueError(
                f"Expected callbacks.{name} with a _target_, the class of the callback, got {given!r}."
                f"{near(name, [other for other in callbacks if other != name])}"
            )
    monitor = (callbacks.get("best") or {}).get("monitor", "val_loss")
    if monitor != "val_loss":
        raise ValueError(
            f"Expected callbacks.best.monitor=val_loss, got {monitor}: a run's validation perplexity is made of it. To "
            "keep the best weights by something else, add a ModelCheckpoint as +callbacks.NAME._target_=..."
        )


def _check_method(method: DictConfig) -> None:
    if "_target_" in method:
        return
    if method.sparsity:
        raise ValueError(
            f"Expected method.sparsity=0 for a dense method, got {method.sparsity}. Choose method=selfish or "
            "another sparse one, or set `sparsity`, which is for all methods at once: dense ones take no note of it."
        )
    for name in map(str, method):
        if name not in _DENSE:
            raise ValueError(f"Nothing reads method.{name}: the method is dense.")
