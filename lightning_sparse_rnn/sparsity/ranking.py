"""Exactly so many of the smallest, or the largest."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["largest", "smallest"]


def smallest(values: Tensor, count: int) -> Tensor:
    """Mark exactly the ``count`` smallest of finite ``values``, shape ``(n,)``; ties go to the earlier position."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    # Not numpy's partition: it is as fast on distinct values, and several times slower where many are equal, as the
    # zeros of newborn weights are that no gradient has reached yet.
    bound = torch.kthvalue(values, count).values
    marked = values <= bound
    surplus = int(torch.count_nonzero(marked)) - count
    if surplus:
        marked[(values == bound).nonzero().squeeze(1)[-surplus:]] = False
    return marked


def largest(values: Tensor, count: int) -> Tensor:
    """Mark exactly the ``count`` largest of finite ``values``, shape ``(n,)``; ties go to the earlier position."""
    return smallest(-values, count)
