"""The step of one tensor as one Triton kernel. Import it where there is Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["step", "takes"]

_BLOCK = 2048
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes(weight: Tensor, gradient: Tensor, mask: Tensor | None, total: Tensor | None) -> bool:
    """Whether the kernel is for these: it computes in single precision, and reads memory as it lies."""
    tensors = [each for each in (weight, gradient, mask, total) if each is not None]
    return all(each.dtype in _DTYPES and each.is_contiguous() and each.device == weight.device for each in tensors)


def step(
    weight: Tensor,
    gradient: Tensor,
    mask: Tensor | None,
    total: Tensor | None,
    decay: float | Tensor,
    move: float | Tensor,
) -> None:
    """Set ``weight`` to decay·weight + move·mask·gradient, and add it to ``total``.

    The two numbers are read from memory where they are tensors of the weight's device, as a CUDA graph needs them
    that is to be replayed with others. Other numbers compile nothing anew.
    """
    decay, move = (_number(each, weight.device) for each in (decay, move))
    size = weight.numel()
    _launch(
        _step,
        (triton.cdiv(size, _BLOCK),),
        weight,
        gradient,
        weight if mask is None else mask,
        weight if total is None else total,
        decay,
        move,
        size,
        MASKED=mask is not None,
        SUMMED=total is not None,
        DECAY_IN_MEMORY=isinstance(decay, Tensor),
        MOVE_IN_MEMORY=isinstance(move, Tensor),
        BLOCK=_BLOCK,
    )


def _number(value: float | Tensor, device: torch.device) -> float | Tensor:
    return value if isinstance(value, Tensor) and value.device == device else float(value)


def _launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    if not grid[0]:
        return
    with torch.cuda.device_of(args[0]):  # Triton launches on the current device, wherever the arguments are
        # Said, because Triton 3.9 warns that its default is to change.
        kernel[grid](*args, **options, num_warps=8, enable_fp_fusion=True)


@triton.jit
def _step(
    weight,
    gradient,
    mask,
    total,
    decay,
    move,
    size,
    MASKED: tl.constexpr,
    SUMMED: tl.constexpr,
    DECAY_IN_MEMORY: tl.constexpr,
    MOVE_IN_MEMORY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if DECAY_IN_MEMORY:
        decay = tl.load(decay).to(tl.float32)
    if MOVE_IN_MEMORY:
        move = tl.load(move).to(tl.float32)
    slope = tl.load(gradient + at, mask=inside).to(tl.float32)
    if MASKED:
        slope *= tl.load(mask + at, mask=inside).to(tl.float32)
    new = tl.load(weight + at, mask=inside).to(tl.float32) * decay + move * slope
    new = new.to(weight.dtype.element_ty)  # the sum is of weights as they are kept
    tl.store(weight + at, new, mask=inside)
    if SUMMED:
        tl.store(total + at, tl.load(total + at, mask=inside) + new.to(tl.float32), mask=inside)
