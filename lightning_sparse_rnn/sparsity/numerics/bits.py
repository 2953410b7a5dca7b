"""Masks as bits: eight positions in each byte, the first one the byte's highest bit, as ``numpy.packbits`` has it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["pack_bits", "unpack_bits"]


def pack_bits(mask: Tensor) -> Tensor:
    """Return ``⌈n / 8⌉`` bytes, uint8 on the CPU: one bit for each of ``n`` entries, set where it is not zero."""
    return torch.from_numpy(np.packbits(mask.detach().bool().cpu().numpy()))


def unpack_bits(bits: Tensor, count: int) -> Tensor:
    """Return the first ``count`` bits that :func:`pack_bits` packed: 1-D, boolean, on the CPU.

    Raises:
        TypeError: ``bits`` is no tensor.
        ValueError: it is not of as many bytes as ``count`` bits take.
    """
    if not isinstance(bits, Tensor):
        raise TypeError(f"Expected bits as a tensor, got {type(bits).__name__}.")
    if bits.dtype != torch.uint8 or bits.shape != (math.ceil(count / 8),):
        kind = f"{str(bits.dtype).removeprefix('torch.')} {tuple(bits.shape)}"
        raise ValueError(f"Expected {math.ceil(count / 8)} bytes of bits for {count} positions, got {kind}.")
    return torch.from_numpy(np.unpackbits(bits.cpu().numpy(), count=count)).view(torch.bool)
