"""Checkpoints: how long they take to write, and how large they are."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from benchmarks.floors import Floors
from benchmarks.models import language_model, text
from benchmarks.setting import Setting
from benchmarks.turns import Figure, compare
from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.checkpoints.writing import WholeFileCheckpointIO
from lightning_sparse_rnn.sparsity.sparse_files import save_sparse

__all__ = ["measure"]

DENSE = "dense, `torch.optim.SGD`, to go on from"


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Write each kind of file in turn. Wall time: most of it is the disk's, whose floor is a file of the same size."""
    dense, sparse = _trained(setting, sparse=False), _trained(setting, sparse=True)
    model = sparse.lightning_module
    files: dict[str, Callable[[Path], None]] = {
        DENSE: dense.save_checkpoint,
        "sparse, averaging, to go on from": sparse.save_checkpoint,
        "sparse, averaging, weights only": lambda path: sparse.save_checkpoint(path, weights_only=True),
        "sparse weight file": lambda path: save_sparse(path, model.state_dict()),
    }
    times: dict[str, list[float]] = {name: [] for name in files}
    floor: dict[str, list[float]] = {name: [] for name in files}
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for turn in range(setting.repeats + 1):
            for name, write in files.items():
                begin = time.perf_counter()
                write(path)
                seconds = time.perf_counter() - begin
                sizes[name] = path.stat().st_size
                if turn:
                    times[name].append(seconds)
                    floor[name].append(_plain_write(path))
    floors_of = {name: (min(found), "a file of that size written, to the disk") for name, found in floor.items()}
    more = {name: {"bytes": size, "bytes_to_dense": size / sizes[DENSE]} for name, size in sizes.items()}
    return compare("checkpoint", times, DENSE, floors_of, more)


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


def _plain_write(path: Path) -> float:
    """Seconds to write the bytes of a file to the disk again."""
    content = path.read_bytes()
    begin = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begin
