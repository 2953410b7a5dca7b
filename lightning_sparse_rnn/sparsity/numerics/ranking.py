"""Exactly so many of the smallest, or the largest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.compaction import count_true, positions_of

__all__ = ["largest", "smallest"]

_SAMPLES = 100_000


def smallest(values: Tensor, count: int) -> Tensor:
    """Mark exactly the ``count`` smallest of finite ``values``, shape ``(n,)``; ties go to the earlier position.

    >>> smallest(torch.tensor([2.0, 1.0, 1.0]), 1)
    tensor([False,  True, False])
    """
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    bound = _kth_smallest(values, count)
    return _drop_last_ties(values <= bound, values, bound, count)


def largest(values: Tensor, count: int) -> Tensor:
    """Mark exactly the ``count`` largest of finite ``values``, shape ``(n,)``; ties go to the earlier position.

    >>> largest(torch.tensor([2.0, 1.0, 2.0]), 1)
    tensor([ True, False, False])
    """
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    bound = _kth_smallest(values, len(values) - count + 1)
    return _drop_last_ties(values >= bound, values, bound, count)


def _drop_last_ties(marked: Tensor, values: Tensor, bound: Tensor, count: int) -> Tensor:
    surplus = count_true(marked) - count
    if surplus:
        marked[positions_of(values == bound)[-surplus:]] = False
    return marked


def _kth_smallest(values: Tensor, k: int) -> Tensor:
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return values.new_tensor(_kth_smallest_by_sample(values.detach().numpy(), k))
    # Not `kthvalue`, which occupies one of a GPU's many processors.
    if k <= len(values) // 2:
        return values.topk(k, largest=False, sorted=False).values.max()
    return values.topk(len(values) - k + 1, sorted=False).values.min()


def _kth_smallest_by_sample(values: np.ndarray, k: int) -> float:
    """Return the ``k``-th smallest, in a few passes over contiguous memory, ten times as fast as ``torch.kthvalue``.

    A sample tells between which values it lies, almost surely; only those are looked at one by one. numpy's partition
    of everything is as fast on distinct values, and takes seconds where half of millions are equal, as the zeros of
    newborn weights are that no gradient has reached yet.
    """
    sample = np.sort(values[:: max(1, len(values) // _SAMPLES)])
    at, slack = k / len(values) * len(sample), 2.0 * len(sample) ** 0.5
    low, high = sample[max(0, int(at - slack))], sample[min(len(sample) - 1, int(at + slack))]
    below = values < low
    rank = k - int(np.count_nonzero(below))
    band = np.compress((values <= high) & ~below, values)
    if not 0 < rank <= len(band):
        band, rank = values, k
    return float(np.partition(band, rank - 1)[rank - 1])
