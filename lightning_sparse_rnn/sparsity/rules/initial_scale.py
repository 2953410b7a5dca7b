"""How much larger live weights start where masks have taken the others away.

A layer that has a share ``d`` of its weights, each as large as in the dense network, passes on signals that are √d
times as large, layer after layer. Weights scaled to what is left pass on what the dense network would (Evci et al.
2022, "Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.compaction import count_true
from lightning_sparse_rnn.sparsity.rules.contract import InitialScale

__all__ = ["INITIAL_SCALES", "InitialScale", "density", "fan_in", "none"]


def none(live: Tensor, is_embedding: bool) -> float:
    """Leave the weights as they are (the paper)."""
    return 1.0


def density(live: Tensor, is_embedding: bool) -> float:
    """Scale a tensor by ``1 / √density``."""
    return math.sqrt(live.numel() / max(1, count_true(live.flatten())))


def fan_in(live: Tensor, is_embedding: bool) -> Tensor:
    """Scale each row (what all other dimensions hold at one place of the first) by ``√(its size / its live weights)``.

    A row without live weights stays at zero.
    """
    rows = live.flatten(1)
    counts = rows.sum(1).clamp(min=1)
    return torch.sqrt(rows.size(1) / counts).view(-1, *[1] * (live.dim() - 1))


INITIAL_SCALES: dict[str, InitialScale] = {"none": none, "density": density, "fan_in": fan_in}
