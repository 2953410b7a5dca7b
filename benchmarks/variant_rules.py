"""The choices of `benchmarks.variants` that the package does not offer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse_rnn import SelfishSparseCallback
from lightning_sparse_rnn.sparsity import Positions, TopologyUpdate, largest
from lightning_sparse_rnn.sparsity.numerics.apportion import apportion
from lightning_sparse_rnn.sparsity.rules.growth import random

Shapes = Mapping[str, tuple[int, ...]]


class ClipsLiveGradients(SelfishSparseCallback):
    """Inactive gradients are gone before the Trainer clips."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        for parameter, mask in self.topology.masks.items():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)


class KeepsOldValues(SelfishSparseCallback):
    """What is pruned and regrown in one update has the value that it had."""

    @torch.no_grad()
    def _update(self, trainer: Trainer, gradients: Mapping[Tensor, Tensor] | None) -> None:
        old = {parameter: parameter.clone() for parameter in self.topology.parameters.values()}
        super()._update(trainer, gradients)
        for parameter, mask in self.topology.masks.items():
            parameter.copy_(torch.where((mask != 0) & (parameter == 0), old[parameter], parameter))


class PrunesByAverages(SelfishSparseCallback):
    """Once there are averages, those of smallest average go; the others keep the weights that are trained."""

    @torch.no_grad()
    def _update(self, trainer: Trainer, gradients: Mapping[Tensor, Tensor] | None) -> None:
        optimizer: Any = trainer.optimizers[0]
        trained = {parameter: parameter.clone() for parameter in self.topology.parameters.values()}
        for parameter in trained:
            parameter.copy_(optimizer.averaged(parameter))
        update = self.topology.update

        def update_and_restore(*args: Any, **options: Any) -> TopologyUpdate:
            done = update(*args, **options)
            for parameter, weights in trained.items():
                old = self.topology.masks[parameter].bool() & ~done.born[parameter]
                parameter.copy_(torch.where(old, weights, 0.0))
            return done

        self.topology.update = update_and_restore  # type: ignore[method-assign]
        super()._update(trainer, gradients)
        del self.topology.update


class FavoursFrequentWords(SelfishSparseCallback):
    """Rows of embedding and decoder begin and regrow in proportion to the root of how often their word occurs."""

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        log_share = torch.bincount(data.corpus.train, minlength=data.vocab_size).add(1).log() / 2
        topology = self.topology
        columns = {name: p.shape[1] for name, p in topology.parameters.items() if p.shape[0] == data.vocab_size}
        live, draws = topology._masks.flat(), torch.Generator().manual_seed(5)
        for name, width in columns.items():
            score = log_share.repeat_interleave(width) + _gumbel(len(live[name]), draws)
            live[name] = largest(score, int(live[name].sum()))
            topology.parameters[name].uniform_(-0.1, 0.1)
        topology._masks.begin(live)

        def grow(free: Positions, count: int) -> Tensor:
            ((name, positions),) = free.indices.items()
            if name not in columns:
                return random(free, count)
            rows = positions // columns[name]
            return largest(log_share[rows] + _gumbel(len(rows), free.generator), count)

        object.__setattr__(topology._rules, "grow", grow)


def _gumbel(count: int, generator: torch.Generator) -> Tensor:
    """Noise with which the largest of log shares are a draw in proportion to the shares, without replacement."""
    return -torch.log(-torch.log(torch.rand(count, generator=generator)))


def lstm_first(shapes: Shapes, density: float) -> dict[str, int]:
    """Give embedding and decoder 0.6 of the density of the recurrent matrices."""
    sizes = [rows * columns for rows, columns in shapes.values()]
    shares = [size if "weight_" in name else 0.6 * size for name, size in zip(shapes, sizes, strict=True)]
    return dict(zip(shapes, apportion(round(density * sum(sizes)), shares, sizes), strict=True))
