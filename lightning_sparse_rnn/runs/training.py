"""One training run, from its config to its results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_sparse_rnn.checkpoints.fits import check_text
from lightning_sparse_rnn.checkpoints.reading import find_last_good, peek
from lightning_sparse_rnn.runs.config_checks import check_config
from lightning_sparse_rnn.runs.flat_config import differences
from lightning_sparse_rnn.runs.folder import CHECKPOINTS, CONFIG, PICTURE, RESULTS
from lightning_sparse_rnn.runs.jobs import RunInterrupted, worked_on
from lightning_sparse_rnn.runs.loggers import finish, hyperparameters, log_end
from lightning_sparse_rnn.runs.matmul_precision import set_matmul_precision
from lightning_sparse_rnn.runs.old_configs import same_runs
from lightning_sparse_rnn.runs.parts import Parts, make_parts
from lightning_sparse_rnn.runs.quiet import quiet
from lightning_sparse_rnn.runs.record import RunRecord
from lightning_sparse_rnn.runs.results import results_of, summary, versions
from lightning_sparse_rnn.utilities.extras import extra
from lightning_sparse_rnn.utilities.whole_files import write_json

__all__ = ["train"]


def train(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train, test and write down one run; go on with it if ``folder`` holds an unfinished one.

    Returns:
        What is in ``results.json``.

    Raises:
        SystemExit: the folder holds a run of another config, or another process is working on it.
        ValueError: the config has a key that nothing reads, or a value that its part cannot take.
    """
    quiet()
    check_config(config)
    if getattr(rank_zero_only, "rank", 0):
        return _train(config, folder)  # the first process holds the run for all
    with worked_on(folder):
        _refuse_other_config(folder, config)
        return _train(config, folder)


def _train(config: DictConfig, folder: Path) -> dict[str, Any]:
    if (folder / RESULTS).exists():
        return _finished(folder)
    versions_used = versions()
    set_matmul_precision(config.matmul_precision)
    pl.seed_everything(config.seed, verbose=False)
    parts = make_parts(config, folder)
    with _logged(parts, config):
        _fit(parts, folder)
        _require_best(parts, config)
        _test(parts)
        results = {**results_of(parts, config.seed), "versions": versions_used}
        if parts.trainer.is_global_zero:
            picture = _draw(parts.record, folder, results, config.get("chosen"))
            log_end(parts.trainer, results, picture)
            write_json(folder / RESULTS, results)
    _say(f"{summary(results)}\nEverything is in {folder}")
    return results


def _finished(folder: Path) -> dict[str, Any]:
    _say(f"This run is finished: {folder / RESULTS}. To run it again, remove its folder.")
    results: dict[str, Any] = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    _say(summary(results))
    return results


@contextmanager
def _logged(parts: Parts, config: DictConfig) -> Iterator[None]:
    """Tell the run's loggers what run it is, and close them however it ends."""
    loggers, status = parts.trainer.loggers, "failed"
    try:
        for logger in loggers:
            logger.log_hyperparams(hyperparameters(config))
        yield
        status = "success"
    finally:
        finish(loggers, status)


def _fit(parts: Parts, folder: Path) -> None:
    """Train, from the last checkpoint that can be read if there is one."""
    checkpoint = find_last_good(folder / CHECKPOINTS)
    if checkpoint is not None:
        _say(f"Going on from {checkpoint}.")
        check_text(peek(checkpoint), parts.data)  # which Lightning would look at after the weights
    with _interruptible():
        parts.trainer.fit(parts.model, datamodule=parts.data, ckpt_path=checkpoint)


def _require_best(parts: Parts, config: DictConfig) -> None:
    """Make sure that training has left a model to test.

    Raises:
        SystemExit: it has not; the message says why.
    """
    sparsity = parts.sparsity
    if parts.best.best_model_path:
        return
    if sparsity is not None and not sparsity.sparsity_reached:
        raise SystemExit(
            f"The run ended at sparsity {sparsity.topology.sparsity:.4f}, before it reached {config.method.sparsity}: "
            "its last topology update came too early. Train for more epochs, or lower method.sparsity_reached_at."
        )
    raise SystemExit(
        "The run ended without a validation to choose the best weights by, so there is nothing to test. Let it "
        "validate: see trainer.max_epochs, trainer.max_steps, trainer.limit_val_batches and "
        "trainer.check_val_every_n_epoch."
    )


def _test(parts: Parts) -> None:
    with _interruptible():
        parts.trainer.test(parts.model, datamodule=parts.data, ckpt_path=parts.best.best_model_path, verbose=False)


def _draw(record: RunRecord, folder: Path, results: dict[str, Any], chosen: DictConfig | None) -> Any:
    """Draw the run, and return the figure; ``None`` where what it takes is not installed."""
    try:
        with extra("report", f"The picture {PICTURE}"):
            from lightning_sparse_rnn.runs.mask_picture import first_and_last
            from lightning_sparse_rnn.runs.picture import draw_run
    except ModuleNotFoundError as error:
        _say(str(error))
        return None
    topology = list(record.topology_rows())
    picture = draw_run(record.rows, topology, results, dict(chosen or {}), first_and_last(folder, topology))
    picture.savefig(folder / PICTURE, dpi=150)
    return picture


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say that a run was interrupted, which to Lightning is an exit like any other.

    Raises:
        RunInterrupted: someone pressed Ctrl-C, or sent SIGTERM.
    """
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended, SIGTERMException) or isinstance(ended.__context__, KeyboardInterrupt):
            raise RunInterrupted(
                "Interrupted. The same command goes on from the last epoch that was finished."
            ) from ended
        raise


def _refuse_other_config(folder: Path, config: DictConfig) -> None:
    path = folder / CONFIG
    if path.exists():
        old, new = OmegaConf.to_container(OmegaConf.load(path)), OmegaConf.to_container(config, resolve=True)
        changed = differences(same_runs(old), same_runs(new))  # type: ignore[arg-type]
        if changed:
            raise SystemExit(
                f"{folder} holds a run with another config:\n  " + "\n  ".join(changed) + "\nRemove that folder, or "
                "choose another place with output=FOLDER."
            )


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
