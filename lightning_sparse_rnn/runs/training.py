"""One training run, from its config to its results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_sparse_rnn.checkpoints.fits import check_text
from lightning_sparse_rnn.checkpoints.reading import find_last_good, peek
from lightning_sparse_rnn.runs.config_checks import check_config
from lightning_sparse_rnn.runs.continuing import Continued, begin_longer, compared, shorter_runs_beside
from lightning_sparse_rnn.runs.folder import CHECKPOINTS, PICTURE, RESULTS
from lightning_sparse_rnn.runs.jobs import RunInterrupted, worked_on
from lightning_sparse_rnn.runs.loggers import begin, finish, hyperparameters, log_end
from lightning_sparse_rnn.runs.matmul_precision import set_matmul_precision
from lightning_sparse_rnn.runs.parts import Parts, make_parts
from lightning_sparse_rnn.runs.quiet import quiet
from lightning_sparse_rnn.runs.results import results_of, summary, versions
from lightning_sparse_rnn.runs.run_picture import draw_picture, in_two_lines
from lightning_sparse_rnn.utilities.whole_files import write_json

__all__ = ["train"]


def train(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train, test and write down one run; go on with it if ``folder`` holds an unfinished one.

    Returns:
        What is in ``results.json``.

    Raises:
        SystemExit: the folder holds a run of another config, and not one that is only to be longer now; or another
            process is working on it.
        ValueError: the config has a key that nothing reads, or a value that its part cannot take.
    """
    quiet()
    check_config(config)
    if getattr(rank_zero_only, "rank", 0):
        return _train(compared(folder, config), folder)  # the first process holds the run for all
    with worked_on(folder):
        continued = compared(folder, config)
        if continued.epochs is not None:
            begin_longer(folder, continued.epochs, config.trainer.max_epochs)
        for name in shorter_runs_beside(folder, config):
            _say(
                "A shorter run of these settings is there. To lengthen it instead of beginning another: "
                f"output={shlex.quote(str(folder.parent))} name={shlex.quote(name)}"
            )
        return _train(continued, folder)


def _train(continued: Continued, folder: Path) -> dict[str, Any]:
    config = continued.config
    if continued.epochs is None and (folder / RESULTS).exists():
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
            picture = _draw(parts, config, folder, results)
            write_json(folder / RESULTS, results)  # before trackers, whose service may be down, can end the run
            log_end(parts.trainer, results, picture)
    _say(f"{summary(results)}\nEverything is in {folder}")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # gloo's threads may abort a process that ends with its group
    return results


def _finished(folder: Path) -> dict[str, Any]:
    _say(f"This run is finished: {folder / RESULTS}. To run it again, remove its folder.")
    results: dict[str, Any] = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    _say(summary(results))
    return results


@contextmanager
def _logged(parts: Parts, config: DictConfig) -> Iterator[None]:
    """Tell the run's loggers what run it is, and close them however it ends."""
    begun: list[Logger] = []  # asked to end, one that did not begin would try to once more
    status = "failed"
    try:
        for logger in parts.trainer.loggers:
            begin(logger, hyperparameters(config))
            begun.append(logger)
        yield
        status = "success"
    finally:
        finish(begun, status)


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
        "The run ended without a validation to choose the best weights by (of a method that prunes step by step: one "
        "at its sparsity), so there is nothing to test. Let it validate before its end: see "
        "trainer.check_val_every_n_epoch, trainer.val_check_interval, trainer.max_steps and trainer.max_time."
    )


def _test(parts: Parts) -> None:
    with _interruptible():
        parts.trainer.test(parts.model, datamodule=parts.data, ckpt_path=parts.best.best_model_path, verbose=False)


def _draw(parts: Parts, config: DictConfig, folder: Path, results: dict[str, Any]) -> Any:
    """Draw the run, and return the figure; ``None`` where that fails, which is said and costs nothing else."""
    live = f"{results['live_weights']:,} of {results['total_weights']:,} weights live"
    try:
        return draw_picture(folder, parts.record, f"{in_two_lines(config)}\n{live}", results)
    except ModuleNotFoundError as error:
        _say(str(error))
    except Exception as error:
        _say(f"{PICTURE} could not be drawn: {error}")
    return None


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


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
