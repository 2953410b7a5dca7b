"""The progress bar of the commands."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar

from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback

__all__ = ["PerplexityProgressBar"]


class PerplexityProgressBar(TQDMProgressBar):
    """A bar an epoch, which stays, with perplexities and the sparsity."""

    def __init__(self, topology: SelfishSparseCallback | None = None) -> None:
        super().__init__(refresh_rate=20, leave=True)
        self._topology = topology

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = {
            name.replace("_", " "): f"{value:.1f}" if isinstance(value, float) else value
            for name, value in super().get_metrics(trainer, pl_module).items()
            if name != "v_num"
        }
        if self._topology is not None:
            metrics["sparsity"] = f"{self._topology.topology.sparsity:.1%}"
        return metrics
