"""Which of a run's models counts."""

from __future__ import annotations

from pathlib import Path

from lightning_sparse_rnn.callbacks.checkpoint import SparseModelCheckpoint
from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback

__all__ = ["BestCheckpoint"]


class BestCheckpoint(SparseModelCheckpoint):
    """Keeps ``best.ckpt``: the model of lowest ``val_loss`` among those that are as sparse as asked for.

    Args:
        folder: where the file goes.
        topology: the run's sparse training, if it has one; it is found among the Trainer's callbacks.
    """

    def __init__(self, folder: Path, topology: SelfishSparseCallback | None = None) -> None:
        super().__init__(
            folder, filename="best", monitor="val_loss", enable_version_counter=False, save_weights_only=True
        )
