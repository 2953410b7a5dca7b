"""Which live weights go.

A rule takes the values of a pool's live weights, shape ``(n,)``, and how many to prune, and returns a boolean tensor
of shape ``(n,)`` in which exactly that many entries are true.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["PRUNING", "magnitude", "smallest"]


def magnitude(weights: Tensor, count: int) -> Tensor:
    """Prune the ``count`` weights of smallest magnitude; of equal magnitudes the earlier position goes first."""
    return smallest(weights.abs(), count)


PRUNING: dict[str, Callable[[Tensor, int], Tensor]] = {"magnitude": magnitude}


def smallest(values: Tensor, count: int) -> Tensor:
    """Mark exactly the ``count`` smallest of finite ``values``, shape ``(n,)``; ties go to the earlier position."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    # Not numpy's partition: it is as fast on distinct values, and several times slower where many are equal, as the
    # zeros of newborn weights are that no gradient has reached yet.
    threshold = torch.kthvalue(values, count).values
    marked = values <= threshold
    surplus = int(torch.count_nonzero(marked)) - count
    if surplus:
        marked[(values == threshold).nonzero().squeeze(1)[-surplus:]] = False
    return marked
