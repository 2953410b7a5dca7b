"""One training run, from its config to its results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_sparse_rnn.checkpoints.fits import check_text
from lightning_sparse_rnn.checkpoints.reading import find_last_good, peek
from lightning_sparse_rnn.checkpoints.writing import BackgroundCheckpointIO, WholeFileCheckpointIO
from lightning_sparse_rnn.runs.best_checkpoint import BestCheckpoint
from lightning_sparse_rnn.runs.config import RUN_CONFIG, SHOWN, model_config
from lightning_sparse_rnn.runs.flat_config import differences
from lightning_sparse_rnn.runs.jobs import RunInterrupted, worked_on
from lightning_sparse_rnn.runs.matmul_precision import set_matmul_precision
from lightning_sparse_rnn.runs.picture import draw_run
from lightning_sparse_rnn.runs.progress_bar import PerplexityProgressBar
from lightning_sparse_rnn.runs.quiet import quiet
from lightning_sparse_rnn.runs.record import RunRecord
from lightning_sparse_rnn.runs.results import log_end, results_of, summary, versions
from lightning_sparse_rnn.utilities.whole_files import write_json

__all__ = ["train"]


def train(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train, test and write down one run; go on with it if ``folder`` holds an unfinished one.

    Returns:
        What is in ``results.json``.

    Raises:
        SystemExit: the folder holds a run of another config, or another process is working on it.
    """
    quiet()
    if getattr(rank_zero_only, "rank", 0):
        return _train(config, folder)  # the first process holds the run for all
    with worked_on(folder):
        _refuse_other_config(folder, config)
        return _train(config, folder)


def _train(config: DictConfig, folder: Path) -> dict[str, Any]:
    finished = folder / "results.json"
    if finished.exists():
        _say(f"This run is finished: {finished}. To run it again, remove its folder.")
        results: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        _say(summary(results))
        return results

    versions_used = versions()
    set_matmul_precision(config.matmul_precision)
    pl.seed_everything(config.seed, verbose=False)
    # What is quick to make comes first, so that a mistake in it shows before text is read.
    sparsity = instantiate(config.method) if "_target_" in config.method else None
    if sparsity is None and config.method.sparsity:
        raise SystemExit(
            f"Expected method.sparsity=0 for a dense method, got {config.method.sparsity}. Choose method=selfish or "
            "another sparse one, or set `sparsity`, which is for all methods at once: dense ones take no note of it."
        )
    averaging = instantiate(config.averaging) if config.averaging else None
    data = instantiate(config.data)
    data.prepare_data()
    data.val_dataloader(), data.test_dataloader()  # a text that is too short shows now, and not after training
    model = instantiate(model_config(config, data.vocab_size), vocab_size=data.vocab_size)
    record = RunRecord(folder, OmegaConf.to_yaml(config, resolve=True), sparsity, averaging)
    best = BestCheckpoint(folder, sparsity)
    # A checkpoint of every epoch's end to resume from, whatever became of the loss.
    last = ModelCheckpoint(
        folder / "checkpoints", filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    bar = PerplexityProgressBar(sparsity) if config.trainer.enable_progress_bar else None
    callbacks = [averaging, sparsity, bar, record, best, last]
    trainer: pl.Trainer = instantiate(
        config.trainer,
        callbacks=[callback for callback in callbacks if callback is not None],
        logger=instantiate(config.logger) if config.logger else False,
        plugins=[WholeFileCheckpointIO()],
        default_root_dir=str(folder),
    )
    if not trainer.limit_test_batches:
        raise ValueError(
            f"Expected trainer.limit_test_batches of more than 0, got {trainer.limit_test_batches}: a run ends with "
            "its test. Leave that out."
        )
    if trainer.strategy.root_device.type != "cpu":  # whose epochs may be as short as it takes to write their weights
        trainer.strategy.checkpoint_io = BackgroundCheckpointIO()
    checkpoint = find_last_good(folder / "checkpoints")
    if checkpoint is not None:
        _say(f"Going on from {checkpoint}.")
        check_text(peek(checkpoint), data)  # which Lightning would look at after the weights
    with _interruptible():
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    if not best.best_model_path and sparsity is not None and not sparsity.sparsity_reached:
        raise SystemExit(
            f"The run ended at sparsity {sparsity.topology.sparsity:.4f}, before it reached {config.method.sparsity}: "
            "its last topology update came too early. Train for more epochs, or lower method.sparsity_reached_at."
        )
    if not best.best_model_path:
        raise SystemExit(
            "The run ended without a validation to choose the best weights by, so there is nothing to test. Let it "
            "validate: see trainer.max_epochs, trainer.max_steps, trainer.limit_val_batches and "
            "trainer.check_val_every_n_epoch."
        )
    with _interruptible():
        trainer.test(model, datamodule=data, ckpt_path=best.best_model_path, verbose=False)

    results = {**results_of(config, data, model, trainer, record, best, sparsity, averaging), "versions": versions_used}
    if trainer.is_global_zero:
        picture = draw_run(record.rows, record.topology_rows())
        picture.savefig(folder / "run.png", dpi=150)
        log_end(trainer, picture, results)
        write_json(finished, results)
    _say(summary(results) + f"\nEverything is in {folder}")
    return results


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
    path = folder / RUN_CONFIG
    if path.exists():
        old, new = OmegaConf.to_container(OmegaConf.load(path)), OmegaConf.to_container(config, resolve=True)
        changed = [line for line in differences(old, new) if not line.startswith(SHOWN)]  # type: ignore[arg-type]
        if changed:
            raise SystemExit(
                f"{folder} holds a run with another config:\n  " + "\n  ".join(changed) + "\nRemove that folder, or "
                "choose another place with output=FOLDER."
            )


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
