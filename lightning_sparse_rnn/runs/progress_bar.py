"""The progress bar of the commands."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar

from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.runs.companions import companion

__all__ = ["PerplexityProgressBar"]


class PerplexityProgressBar(TQDMProgressBar):
    """One bar per epoch, which stays, with perplexities and the sparsity.

    Args:
        refresh_rate: after how many batches it is drawn again.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = {
            name.replace("_", " "): f"{value:.1f}" if isinstance(value, float) else value
            for name, value in super().get_metrics(trainer, pl_module).items()
            if name != "v_num"
        }
        sparse = companion(trainer, SelfishSparseCallback)
        if sparse is not None:
            metrics["sparsity"] = f"{sparse.topology.sparsity:.1%}"
        return metrics
