"""Sparse training of your own module, with your own Trainer and optimizer: one callback more.

A GRU learns to tell which of two noisy waves comes first. 90 % of its weights are zero from the first step on.
"""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse_rnn import SelfishSparseCallback


class WaveClassifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, 128, batch_first=True)
        self.head = nn.Linear(128, 2)

    def forward(self, waves: Tensor) -> Tensor:
        return self.head(self.rnn(waves)[0][:, -1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        accuracy = (self(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("val_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def waves(count: int, seed: int, steps: int = 40) -> TensorDataset:
    """Fast then slow (class 0) or slow then fast (class 1), so many steps of each, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    time = torch.arange(float(steps))
    halves = torch.stack([torch.sin(time * 1.0), torch.sin(time * 0.5)])
    signal = torch.cat([halves[labels], halves[1 - labels]], dim=1)
    return TensorDataset((signal + 0.5 * torch.randn(count, 2 * steps, generator=generator)).unsqueeze(2), labels)


if __name__ == "__main__":
    pl.seed_everything(0)
    sparse = SelfishSparseCallback(sparsity=0.9)
    trainer = pl.Trainer(max_epochs=8, callbacks=[sparse], logger=False, enable_checkpointing=False)
    trainer.fit(WaveClassifier(), DataLoader(waves(2000, 0), 50, shuffle=True), DataLoader(waves(500, 1), 500))
    print(f"accuracy {float(trainer.callback_metrics['val_accuracy']):.3f} at sparsity {sparse.topology.sparsity:.1%}")
    print(sparse.topology.gate_densities()["rnn.weight_hh_l0"])
