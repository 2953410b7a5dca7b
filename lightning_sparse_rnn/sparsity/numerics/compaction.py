"""What stands where a mask is true: counted, taken out in one piece, and put back.

On the CPU by numpy, block by block so that each block stays in cache (2 to 6 times faster than torch); on other devices
by torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["INTEGERS", "compact", "compact_into", "count_true", "expand", "positions_of"]

_BLOCK = 65_536
#: By their size in bytes. Where values are only moved they stand for any dtype, and numpy has no bfloat16.
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def count_true(mask: Tensor) -> int:
    """Return how many entries of a boolean tensor are true."""
    if _is_here(mask):
        return int(np.count_nonzero(mask.numpy()))
    return int(torch.count_nonzero(mask))


def positions_of(mask: Tensor) -> Tensor:
    """Return where a 1-D boolean tensor is true: int64, ascending."""
    if _is_here(mask):
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)


def compact(values: Tensor, where: Tensor) -> Tensor:
    """Return ``values[where]`` of two 1-D tensors of one length.

    >>> compact(torch.tensor([5, 6, 7]), torch.tensor([True, False, True]))
    tensor([5, 7])
    """
    return compact_into(values.new_empty(count_true(where)), values, where)


def compact_into(out: Tensor, values: Tensor, where: Tensor) -> Tensor:
    """Write ``values[where]`` into ``out``, a 1-D tensor that has just as many entries, and return it."""
    if not (_is_here(values) and _is_here(where) and _is_here(out)):
        return out.copy_(values[where.to(values.device)])
    source, target = _as_integers(values), _as_integers(out)
    for block, indices, start in _blocks(where):
        np.take(source[block], indices, out=target[start : start + len(indices)], mode="clip")
    return out


def expand(values: Tensor, where: Tensor) -> Tensor:
    """Return zeros of the length of ``where`` with ``values`` put, in order, where that is true.

    >>> expand(torch.tensor([5, 7]), torch.tensor([True, False, True]))
    tensor([5, 0, 7])
    """
    out = values.new_zeros(where.shape)
    if not (_is_here(values) and _is_here(where)):
        return out.masked_scatter_(where, values)
    source, target = _as_integers(values), _as_integers(out)
    for block, indices, start in _blocks(where):
        target[block][indices] = source[start : start + len(indices)]
    return out


def _blocks(where: Tensor) -> Iterator[tuple[slice, np.ndarray, int]]:
    """Yield slices, where in them ``where`` is true, and how often it was before."""
    mask, before = where.numpy(), 0
    for start in range(0, len(mask), _BLOCK):
        block = slice(start, start + _BLOCK)
        indices = np.flatnonzero(mask[block])
        yield block, indices, before
        before += len(indices)


def _as_integers(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().view(INTEGERS[tensor.element_size()]).numpy()
    return array


def _is_here(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and type(tensor) is Tensor
