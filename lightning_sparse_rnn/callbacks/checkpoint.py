"""Which of a run's models counts as its best."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

from lightning_sparse_rnn.callbacks.base import ModelCheckpoint
from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback

__all__ = ["SparseModelCheckpoint"]


class SparseModelCheckpoint(ModelCheckpoint):
    """A ``ModelCheckpoint`` for which only models count that are as sparse as asked for.

    A network that grows sparser as it trains has its lowest losses while it is still dense. With ``monitor`` these are
    passed over; without, this is Lightning's ``ModelCheckpoint``, as it is in a run without
    :class:`~lightning_sparse_rnn.SelfishSparseCallback`.

    Args:
        arguments, options: those of Lightning's ``ModelCheckpoint``.
        at_any_sparsity: let models count that are not yet as sparse as asked for, too.

    Example:
        >>> checkpoint = SparseModelCheckpoint(monitor="val_loss", filename="best")
        >>> checkpoint.monitor
        'val_loss'
    """

    def __init__(self, *arguments: Any, at_any_sparsity: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.at_any_sparsity = at_any_sparsity

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the model is to be kept."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        counts = self.at_any_sparsity or all(
            callback.sparsity_reached for callback in callbacks if isinstance(callback, SelfishSparseCallback)
        )
        return counts and bool(super().check_monitor_top_k(trainer, current))
