"""Refuses a run that would train to its end and then have no result."""

from __future__ import annotations

import pytorch_lightning as pl

from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.runs.companions import companion

__all__ = ["LongEnough"]


class LongEnough(pl.Callback):
    """Makes sure, before the first step, that the weights will be as sparse as they are to be in the end.

    Raises:
        ValueError: the last update of the topology will come too early.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sparse = companion(trainer, SelfishSparseCallback)
        if sparse is not None and not sparse.will_reach_sparsity(trainer):
            raise ValueError(
                "This run would end before its sparsity is reached: its last topology update comes too early. Train "
                "for more epochs, update more often (method.update_every_n_epochs, or method.update_every_n_steps to "
                "update within epochs), or lower method.sparsity_reached_at."
            )
