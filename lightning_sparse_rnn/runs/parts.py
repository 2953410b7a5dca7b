"""What a run is made of, from its config: data, model, callbacks and Trainer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from lightning_sparse_rnn.callbacks.averaging import NonMonotonicAveraging
from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.checkpoints.writing import BackgroundCheckpointIO, WholeFileCheckpointIO
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.runs.checkpoint_callbacks import BestCheckpoint
from lightning_sparse_rnn.runs.companions import companion
from lightning_sparse_rnn.runs.config import model_config
from lightning_sparse_rnn.runs.initial_weights import InitialWeights, initial_weights
from lightning_sparse_rnn.runs.loggers import make_loggers
from lightning_sparse_rnn.runs.long_enough import LongEnough
from lightning_sparse_rnn.runs.progress_bar import EpochLines
from lightning_sparse_rnn.runs.record import ConfigFile, RunRecord
from lightning_sparse_rnn.runs.run_picture import RunPicture, in_two_lines
from lightning_sparse_rnn.utilities.making import make

__all__ = ["Parts", "make_parts"]


@dataclass(frozen=True)
class Parts:
    """The parts of a run; ``sparsity`` and ``averaging`` are ``None`` where it has none."""

    data: Any
    model: pl.LightningModule
    trainer: pl.Trainer
    record: RunRecord
    best: BestCheckpoint
    sparsity: SelfishSparseCallback | None
    averaging: NonMonotonicAveraging | None


def make_parts(config: DictConfig, folder: Path) -> Parts:
    """Make all parts of a run. What is quick to make comes first, so that a mistake in it shows before text is read.

    Raises:
        ValueError: a value is not one that its part can take.
    """
    weights = initial_weights(config, folder)
    callbacks = _callbacks(config, folder, weights)
    data = _data(config, weights)
    sizes = {"vocab_size": data.vocab_size} if hasattr(data, "vocab_size") else {}
    model = make(model_config(config, sizes.get("vocab_size", 0)), **sizes)
    if weights is not None:
        weights.load(model)
    trainer = _trainer(config, folder, callbacks)
    record, best = companion(trainer, RunRecord), companion(trainer, BestCheckpoint)
    assert record is not None
    assert best is not None
    return Parts(
        data=data,
        model=model,
        trainer=trainer,
        record=record,
        best=best,
        sparsity=companion(trainer, SelfishSparseCallback),
        averaging=companion(trainer, NonMonotonicAveraging),
    )


def _callbacks(config: DictConfig, folder: Path, weights: InitialWeights | None) -> list[pl.Callback]:
    """Make the callbacks in the order in which Lightning is to call them; checkpoints come last there anyway."""
    made = {name: make(given) for name, given in _with_known_end(config).items() if given is not None}
    for name, kind in {"record": RunRecord, "best": BestCheckpoint}.items():
        if not any(isinstance(callback, kind) for callback in made.values()):
            raise ValueError(
                f"Expected callbacks.{name} to be a {kind.__name__}, got none: a run's results are made of what it "
                f"keeps. Leave callbacks.{name} as it is."
            )
    bar = config.trainer.get("enable_progress_bar")
    if not (sys.stdout.isatty() if bar is None else bar):
        made = {name: callback for name, callback in made.items() if not isinstance(callback, ProgressBar)}
    if not any(isinstance(callback, ProgressBar) for callback in made.values()):
        made["lines"] = EpochLines()
    method = None
    if "_target_" in config.method:
        method = make(config.method) if weights is None else weights.method(config.method)
    written = ConfigFile(folder, OmegaConf.to_yaml(config, resolve=True))
    first = [made.pop("averaging", None), method, written]
    last = [LongEnough(), RunPicture(in_two_lines(config))]
    return [callback for callback in (*first, *made.values(), *last) if callback is not None]


def _with_known_end(config: DictConfig) -> DictConfig:
    """Return the callbacks' configs; without restarts at shares of ``max_epochs`` where the run has none."""
    callbacks: DictConfig = config.callbacks
    averaging, epochs = callbacks.get("averaging"), config.trainer.get("max_epochs")
    if averaging and averaging.get("restart_at") and epochs in (None, -1):
        rank_zero_info(
            "The run has no trainer.max_epochs: its averages begin when their trigger fires, and not at "
            f"callbacks.averaging.restart_at={averaging.restart_at}."
        )
        return OmegaConf.merge(callbacks, {"averaging": {"restart_at": []}})  # type: ignore[return-value]
    return callbacks


def _data(config: DictConfig, weights: InitialWeights | None) -> Any:
    data = make(config.data)
    if weights is not None:
        weights.read(data)
    data.prepare_data()
    if isinstance(data, TextDataModule):
        # A text that is too short shows now, and not after training.
        data.val_dataloader()
        batches, share = len(data.test_dataloader()), config.trainer.get("limit_test_batches")
        if isinstance(share, float) and batches * share < 1:
            raise ValueError(
                f"Expected trainer.limit_test_batches of at least 1 batch of the test text's {batches}, got the share "
                f"{share} of them."
            )
    return data


def _trainer(config: DictConfig, folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    compact = config.compact_checkpoints
    trainer: pl.Trainer = make(
        config.trainer,
        callbacks=callbacks,
        logger=make_loggers(config) or False,
        plugins=[*(make(config.trainer.get("plugins")) or []), WholeFileCheckpointIO(compact)],
        default_root_dir=str(folder),
        # Without one of ours Lightning would show its own.
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )
    if trainer.strategy.root_device.type != "cpu":  # whose epochs may be as short as it takes to write their weights
        trainer.strategy.checkpoint_io = BackgroundCheckpointIO(compact)
    return trainer
