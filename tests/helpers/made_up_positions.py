"""Positions of a pool of one tensor, for rules to choose from."""

from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity import Positions, Quantities
from lightning_sparse_rnn.sparsity.rules.pools import Pool

__all__ = ["chosen", "positions"]


def positions(weights: list[float], where: list[bool] | None = None, **quantities: list[Any]) -> Positions:
    """The positions of a pool of one tensor; all of them, if not said ``where``."""
    given = {"weights": weights, **quantities}
    return Positions(
        Pool("w", {"w": (0, len(weights))}),
        torch.tensor(where or [True] * len(weights)),
        Quantities(**{name: {"w": torch.tensor(values)} for name, values in given.items()}),
        torch.Generator().manual_seed(0),
        {},
    )


def chosen(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()
