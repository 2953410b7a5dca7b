"""What a run is made of, from its config: data, model, callbacks and Trainer."""

from __future__ import annotations

import itertools
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
from lightning_sparse_rnn.runs.config import make, model_config
from lightning_sparse_rnn.runs.initial_weights import InitialWeights, initial_weights
from lightning_sparse_rnn.runs.loggers import make_loggers
from lightning_sparse_rnn.runs.progress_bar import EpochLines
from lightning_sparse_rnn.runs.record import ConfigFile, RunRecord
from lightning_sparse_rnn.runs.run_picture import RunPicture, in_two_lines

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
    if isinstance(method, SelfishSparseCallback):
        _check_length(method, config.trainer)
    written = ConfigFile(folder, OmegaConf.to_yaml(config, resolve=True))
    first = [made.pop("averaging", None), method, written]
    last = RunPicture(in_two_lines(config))
    return [callback for callback in (*first, *made.values(), last) if callback is not None]


def _check_length(method: SelfishSparseCallback, trainer: DictConfig) -> None:
    """Raise if a run will end before its weights are as sparse as they are to be, and so have no result.

    Raises:
        ValueError: says how many epochs it takes.
    """
    epochs = trainer.get("max_epochs")
    others = (trainer.get("max_steps", -1), trainer.get("max_time"))
    # Texts of drawn lengths have no epochs of one length: an update may come a little later than it says here.
    if not isinstance(epochs, int) or epochs < 1 or others != (-1, None) or method.falls_short(epochs) < 1e-4:
        return
    enough = next(longer for longer in itertools.count(epochs) if not method.falls_short(longer))
    raise ValueError(
        f"Expected trainer.max_epochs of {enough}, or another number in which this method reaches its sparsity, got "
        f"{epochs}: it prunes between epochs, and after the last update weights would be left to prune. Or let it "
        "prune within epochs: method.update_every_n_steps=100."
    )


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
        data.val_dataloader(), data.test_dataloader()  # a text that is too short shows now, and not after training
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
    _check_evaluates(trainer)
    if trainer.strategy.root_device.type != "cpu":  # whose epochs may be as short as it takes to write their weights
        trainer.strategy.checkpoint_io = BackgroundCheckpointIO(compact)
    return trainer


def _check_evaluates(trainer: pl.Trainer) -> None:
    """Raise if a run would train to its end and then lack a validation to choose its best weights by, or its test.

    Raises:
        ValueError: says what stands in the way.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise ValueError(
            "Expected no trainer.fast_dev_run: it keeps no weights that could be tested. For a quick look: "
            "trainer.max_epochs=1 +trainer.limit_train_batches=2 +trainer.limit_val_batches=2."
        )
    for name in ("limit_val_batches", "limit_test_batches"):
        if not getattr(trainer, name):
            raise ValueError(
                f"Expected trainer.{name} of more than 0, got {getattr(trainer, name)}: a run ends with the test of "
                "its best weights. Leave that out."
            )
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    if epochs == 0:
        raise ValueError("Expected trainer.max_epochs of at least 1, or of -1 for a run without that limit, got 0.")
    if epochs is not None and every is not None and 0 < epochs < every:
        raise ValueError(
            f"Expected trainer.check_val_every_n_epoch of at most trainer.max_epochs={epochs}, got {every}: a run "
            "without a validation has no best weights."
        )
