"""The config that a test goes by: read from a run's folder, checked, and changed on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.models.building import check_named, check_options
from lightning_sparse_rnn.runs.config import written_config
from lightning_sparse_rnn.runs.config_checks import near
from lightning_sparse_rnn.runs.folder import CONFIG
from lightning_sparse_rnn.utilities.plain_values import check_plain

__all__ = ["ALONE", "changed", "check_read", "config_of"]

# What testing makes of a run's config, by the names that configs have for it.
_TRAINERS = {"pytorch_lightning.Trainer": pl.Trainer}
_DATA = {"lightning_sparse_rnn.data.TextDataModule": TextDataModule}
_MODELS = {"lightning_sparse_rnn.models.LanguageModel": LanguageModel}
#: What testing does with a Trainer whatever its config says.
ALONE: dict[str, Any] = {
    "devices": 1,
    "strategy": "auto",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
# What of a config testing reads, and of its Trainer's options; and what it does not: of training, and beside --text.
_READ = ("data", "trainer", "model", "matmul_precision")
_OF_TRAINER = (
    "accelerator", "barebones", "benchmark", "callbacks", "detect_anomaly", "deterministic", "fast_dev_run",
    "inference_mode", "limit_test_batches", "overfit_batches", "plugins", "precision", "profiler",
)  # fmt: skip
_OF_TRAINING = ("batch_size", "lengths", "max_extra", "train_lines", "shuffle_parts", "seed")
_LOSS_TERMS = ("ar", "tar", "lr_bptt")
_OF_OWN_TEXT = ("source", "root", "shares", "tokens", "min_count", "max_vocabulary", "cache_dir")


def config_of(run: Path, overrides: Sequence[str], trusted: bool) -> DictConfig:
    """The config of a run's folder, with what is given on the command line, which may name anything."""
    path = run / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"Expected the folder of a run, with its {CONFIG}, or a model's file, got {run}.")
    config = written_config(path)
    if not trusted:
        _check_config(OmegaConf.to_container(config))  # type: ignore[arg-type]
    return changed(config, overrides)


def changed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Change values of a config in place, and return it."""
    OmegaConf.set_struct(config, True)
    for override in overrides:
        try:
            _override(config, override)
        except Exception as error:  # OmegaConf's, of several kinds
            first = str(error).splitlines()[0]
            raise ValueError(f"Expected overrides like data.test_batch_size=1, got {override}: {first}") from None
    return config


def _check_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError if testing would make what a run's config names and is not known here, or resolve a value."""
    check_named("trainer", config.get("trainer"), _TRAINERS)
    check_named("data", config.get("data"), _DATA)
    model = dict(config.get("model") or {})
    if model.pop("_recursive_", False) is not False:
        raise ValueError("Expected `model._recursive_` to be false: a LanguageModel makes its parts itself.")
    check_named("model", {"_target_": model.pop("_target_", None)}, _MODELS)
    check_plain("model", {name: value for name, value in model.items() if name.startswith("_")})
    check_options(model)
    # Other groups may name anything, since nothing of them is made here.
    method = config.get("method")
    check_plain(
        "method.weights_of_sparsity", method.get("weights_of_sparsity") if isinstance(method, Mapping) else None
    )
    check_plain("matmul_precision", config.get("matmul_precision"))
    check_plain("init_from", config.get("init_from"))


def check_read(override: str, of_a_file: bool, other_text: bool) -> None:
    """Raise ValueError if nothing in a test depends on what an override changes."""
    name = override.partition("=")[0].lstrip("+")
    group, _, option = name.partition(".")
    groups = ("data",) if of_a_file else _READ
    if group not in groups:
        raise ValueError(
            f"Testing does not read {name}: {override} has no effect. Of these can be changed: {', '.join(groups)}."
        )
    if group == "trainer" and option in ALONE:
        raise ValueError(f"A test runs on one device, without loggers: {override} has no effect.")
    if group == "trainer" and option not in _OF_TRAINER:
        known = ", ".join(_OF_TRAINER)
        raise ValueError(f"A test does not read {name}: {override} has no effect. Of the Trainer it reads: {known}.")
    if group == "model" and (option in _LOSS_TERMS or "drop" in option):
        raise ValueError(f"{name} is of training: {override} has no effect.")
    if group == "data" and option in _OF_TRAINING:
        hint = " Did you mean data.test_batch_size?" if option == "batch_size" else ""
        raise ValueError(f"data.{option} is of training: {override} has no effect.{hint}")
    if group == "data" and other_text and option in _OF_OWN_TEXT:
        raise ValueError(f"The text is that of --text, in the model's own tokens: {override} has no effect.")


def _override(config: DictConfig, override: str) -> None:
    """Change a value, or with ``+`` add one, as in Hydra's commands."""
    name, equals, _ = override.removeprefix("+").partition("=")
    if not equals:
        raise ValueError("there is no =")
    if isinstance(OmegaConf.select(config, name), DictConfig):
        raise ValueError(f"{name} is not one value. Name one in it, as in {name}.{next(iter(config[name]))}=...")
    parent, _, last = name.rpartition(".")
    known = OmegaConf.select(config, parent) if parent else config
    if not override.startswith("+") and isinstance(known, DictConfig) and last not in known:
        raise ValueError(f"there is no {name}.{near(last, map(str, known))} An option that it takes is added with +.")
    with open_dict(config) if override.startswith("+") else nullcontext():
        config.merge_with_dotlist([override.removeprefix("+")])
