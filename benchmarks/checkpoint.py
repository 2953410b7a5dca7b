"""Checkpoints: how long they take to write and to read, and how large they are."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from benchmarks.floors import Floors
from benchmarks.models import language_model, text
from benchmarks.setting import Setting
from benchmarks.turns import Figure, compare
from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.checkpoints.writing import WholeFileCheckpointIO
from lightning_sparse_rnn.sparsity.sparse_files import load_sparse, save_sparse

__all__ = ["measure"]

DENSE = "dense, `torch.optim.SGD`, to go on from"


@dataclass(frozen=True)
class File:
    """A kind of file: how it is written, and read."""

    write: Callable[[Path], object]
    read: Callable[[Path], object] = load_checkpoint


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Write and read each kind of file in turn.

    Wall time: most of it is the disk's, whose floor is a file of the same size. What is read has just been written, and
    is in memory still.
    """
    dense, sparse = _trained(setting, sparse=False), _trained(setting, sparse=True)
    model = sparse.lightning_module
    files = {
        DENSE: File(dense.save_checkpoint),
        "sparse, averaging, to go on from": File(sparse.save_checkpoint),
        "sparse, averaging, to go on from, compact": File(lambda path: _save_compactly(sparse, path)),
        "sparse, averaging, weights only": File(lambda path: sparse.save_checkpoint(path, weights_only=True)),
        "sparse weight file": File(lambda path: save_sparse(path, model.state_dict()), load_sparse),
    }
    times: dict[str, list[float]] = {name: [] for name in files}
    reading: dict[str, list[float]] = {name: [] for name in files}
    floor: dict[str, list[float]] = {name: [] for name in files}
    more: dict[str, dict[str, float]] = {}
    for turn in range(setting.repeats + 1):
        for name, file in files.items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "file"
                written, read = _seconds(file.write, path), _seconds(file.read, path)
                sizes = [each.stat().st_size for each in Path(folder).iterdir()]
                if turn:
                    times[name].append(written)
                    reading[name].append(read)
                    floor[name].append(_plain_write(Path(folder)))
            more[name] = {"bytes": sum(sizes)}
            more[name]["bytes_to_dense"] = sum(sizes) / more[DENSE]["bytes"]
            if len(sizes) > 1:
                more[name] |= {"files": len(sizes), "largest_bytes": max(sizes)}
    for name, seconds in reading.items():
        more[name]["read_seconds"] = statistics.median(seconds)
    floors_of = {name: (min(found), "a file of that size written, to the disk") for name, found in floor.items()}
    return compare("checkpoint", times, DENSE, floors_of, more)


def _seconds(step: Callable[[Path], object], path: Path) -> float:
    begin = time.perf_counter()
    step(path)
    return time.perf_counter() - begin


def _save_compactly(trainer: pl.Trainer, path: Path) -> None:
    before, trainer.strategy.checkpoint_io = trainer.strategy.checkpoint_io, WholeFileCheckpointIO(compact=True)
    trainer.save_checkpoint(path)
    trainer.strategy.checkpoint_io = before


def _trained(setting: Setting, sparse: bool) -> pl.Trainer:
    """A Trainer after two steps; the sparse one's are averaged."""
    optimizer = "lightning_sparse_rnn.SNTASGD" if sparse else "torch.optim.SGD"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_steps=2,
            accelerator="cpu" if setting.device.type == "cpu" else "gpu",
            devices=1,
            callbacks=[NonMonotonicAveraging(), SelfishSparseCallback(), _Average()] if sparse else [],
            plugins=[WholeFileCheckpointIO()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches = text(setting)()
        loader = DataLoader([next(batches) for _ in range(2)], batch_size=None)  # type: ignore[arg-type]
        trainer.fit(language_model(setting.size, optimizer), loader)
    trainer.state.fn, trainer.training = "fit", True  # type: ignore[assignment]
    return trainer


class _Average(pl.Callback):
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.optimizers[0].restart()  # type: ignore[attr-defined]


def _plain_write(folder: Path) -> float:
    """Seconds to write the bytes of a folder's files to the disk again."""
    content = b"".join(path.read_bytes() for path in folder.iterdir())

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    return _seconds(write, folder / "again")
