"""Which inactive weights come back.

A rule takes the number of a pool's inactive positions, how many to regrow and a generator, and returns a boolean
tensor of shape ``(candidates,)`` in which exactly that many entries are true.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.sampling import choose

__all__ = ["GROWTH", "random"]


def random(candidates: int, count: int, generator: torch.Generator) -> Tensor:
    """Regrow uniformly at random (the paper's choice): every set of ``count`` positions is equally likely."""
    return choose(candidates, count, generator)


GROWTH: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {"random": random}
