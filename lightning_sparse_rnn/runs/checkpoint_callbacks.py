"""Which of a run's models counts."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback

__all__ = ["BestCheckpoint"]


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``: the model of lowest ``val_loss`` among those that are as sparse as asked for.

    A method that grows sparser as it trains has its lowest losses while it is still dense: those do not count.

    Args:
        folder: where the file goes.
        topology: the run's sparse training, if it has one.
    """

    def __init__(self, folder: Path, topology: SelfishSparseCallback | None) -> None:
        super().__init__(
            folder, filename="best", monitor="val_loss", enable_version_counter=False, save_weights_only=True
        )
        self._topology = topology

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the model is to be kept."""
        counts = self._topology is None or self._topology.sparsity_reached
        return counts and super().check_monitor_top_k(trainer, current)
