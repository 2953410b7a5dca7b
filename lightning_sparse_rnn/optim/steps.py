"""One SGD step of several masked tensors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = []


def _step_foreach(
    weights: list[Tensor],
    gradients: list[Tensor],
    masks: list[Tensor | None],
    sums: list[Tensor] | None,
    decay: float,
    move: float,
) -> None:
    if decay != 1.0:
        torch._foreach_mul_(weights, decay)
    masked = [(w, g, m) for w, g, m in zip(weights, gradients, masks, strict=True) if m is not None]
    dense = [(w, g) for w, g, m in zip(weights, gradients, masks, strict=True) if m is None]
    if masked:
        live = [list(column) for column in zip(*masked, strict=True)]
        torch._foreach_addcmul_(live[0], live[1], live[2], value=move)
    if dense:
        torch._foreach_add_([w for w, _ in dense], [g for _, g in dense], alpha=move)
    if sums is not None:
        torch._foreach_add_(sums, weights)


def _step_one_by_one(
    weights: list[Tensor],
    gradients: list[Tensor],
    masks: list[Tensor | None],
    sums: list[Tensor] | None,
    decay: float,
    move: float,
) -> None:
    for index, (weight, gradient, mask) in enumerate(zip(weights, gradients, masks, strict=True)):
        if decay != 1.0:
            weight.mul_(decay)
        if mask is None:
            weight.add_(gradient, alpha=move)
        else:
            weight.addcmul_(gradient, mask, value=move)
        if sums is not None:
            sums[index].add_(weight)
