"""Toy modules with any optimizer, a logger in memory, and a watch over masks, for the tests of the callbacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_runs import Toy, loaders, make_trainer
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor

from lightning_sparse_rnn import SNTASGD, SelfishSparseCallback

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "sntasgd": lambda parameters: SNTASGD(parameters, lr=0.5, weight_decay=1e-3, nonmono=1),
}


class Net(Toy):
    """The toy with an optimizer by name, or one made by a function of the parameters."""

    def __init__(self, optimizer: str | Callable[[Any], torch.optim.Optimizer] = "sntasgd") -> None:
        super().__init__()
        self.make_optimizer = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


def net(optimizer: str | Callable[[Any], torch.optim.Optimizer] = "sntasgd", seed: int = 1) -> Net:
    """A toy with weights of its own."""
    torch.manual_seed(seed)
    return Net(optimizer)


class Watch(pl.Callback):
    """After every batch, asserts that inactive weights are exactly zero and that every tensor keeps its count."""

    def __init__(self, sparse: SelfishSparseCallback) -> None:
        self.sparse = sparse
        self.batches = 0
        self.counts: dict[str, int] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        topology = self.sparse.topology
        masks = topology.masks
        counts = {}
        for name, parameter in topology.parameters.items():
            assert not parameter[masks[parameter] == 0].any(), f"{name} has inactive weights that are not zero"
            counts[name] = int(masks[parameter].count_nonzero())
        assert counts == (self.counts or counts)
        self.counts = counts
        self.batches += 1


class MemoryLogger(Logger):
    """Keeps what is logged, as (step, metrics)."""

    name = "memory"
    version = 0

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Parameters of the run are of no interest here."""


def fit(folder: Path, module: pl.LightningModule, *callbacks: Any, **options: Any) -> pl.Trainer:
    """Train on five batches an epoch, with the same dropout and shuffling every time, and return the Trainer."""
    torch.manual_seed(0)
    trainer = make_trainer(folder, callbacks, **options)
    trainer.fit(module, *loaders())
    return trainer


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of a module's parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
