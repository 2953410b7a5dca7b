"""One step of SGD on several tensors: w ← (1 − ηλ)·w − η·(m ⊙ g), and their running sums grow by w.

Three ways to the same numbers up to rounding: tensor by tensor, one call for many tensors, and on GPUs one kernel for
each tensor (:mod:`~lightning_sparse_rnn.optim.steps_triton`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.utilities.triton import triton_works

__all__ = ["Step", "step_by_kernel", "step_foreach", "step_one_by_one", "take"]


@dataclass
class Step:
    """What a step is taken with.

    Attributes:
        weights: w, which the step changes.
        gradients: g, in the shapes of ``weights``.
        masks: m, 1 where a weight is live and 0 elsewhere, or ``None`` where all are.
        sums: running sums to add the new w to, or ``None`` while nothing is averaged.
        decay: 1 − ηλ.
        move: −η, or η to ascend. Like ``decay`` a tensor of one element where η is one.
    """

    weights: list[Tensor]
    gradients: list[Tensor]
    masks: list[Tensor | None]
    sums: list[Tensor] | None
    decay: Any
    move: Any


def take(step: Step, foreach: bool | None) -> None:
    """Take a step the way asked for, or, with ``None``, the fastest way where the weights are."""
    if not step.weights:
        return
    if foreach is None and all(weight.is_cuda for weight in step.weights):
        kernels = _kernels_for(step.weights[0].device)
        if kernels is not None and all(map(kernels.takes, *_columns(step))):
            step_by_kernel(step, kernels)
            return
    if foreach is None:
        foreach = all(weight.device.type != "cpu" for weight in step.weights)
    (step_foreach if foreach else step_one_by_one)(step)


def step_one_by_one(step: Step) -> None:
    """Tensor by tensor, which is fastest on CPUs."""
    for weight, gradient, mask, total in zip(*_columns(step), strict=True):
        if step.decay != 1.0:
            weight.mul_(step.decay)
        if mask is None:
            weight.add_(gradient, alpha=step.move)
        else:
            weight.addcmul_(gradient, mask, value=step.move)
        if total is not None:
            total.add_(weight)


def step_foreach(step: Step) -> None:
    """One call for many tensors."""
    if step.decay != 1.0:
        torch._foreach_mul_(step.weights, step.decay)
    rows = list(zip(step.weights, step.gradients, step.masks, strict=True))
    masked = [(weight, gradient, mask) for weight, gradient, mask in rows if mask is not None]
    dense = [(weight, gradient) for weight, gradient, mask in rows if mask is None]
    if masked:
        live = [list(column) for column in zip(*masked, strict=True)]
        torch._foreach_addcmul_(live[0], live[1], live[2], value=step.move)
    if dense:
        torch._foreach_add_([w for w, _ in dense], [g for _, g in dense], alpha=step.move)
    if step.sums is not None:
        torch._foreach_add_(step.sums, step.weights)


def step_by_kernel(step: Step, kernels: ModuleType) -> None:
    """One kernel for each tensor, which reads and writes everything once."""
    for weight, gradient, mask, total in zip(*_columns(step), strict=True):
        kernels.step(weight, gradient, mask, total, step.decay, step.move)


def _columns(step: Step) -> tuple[list[Tensor], list[Tensor], list[Tensor | None], list[Tensor | None]]:
    sums: list[Tensor | None] = [None] * len(step.weights) if step.sums is None else [*step.sums]
    return step.weights, step.gradients, step.masks, sums


@functools.cache
def _kernels_for(device: torch.device) -> ModuleType | None:
    """Triton's kernels, if it is there and works on this GPU."""

    def launch() -> None:
        _kernels().step(*torch.ones(2, 1, device=device), None, None, 1.0, -1.0)

    return _kernels() if triton_works(device, launch, "SNTASGD takes its steps in several kernels") else None


def _kernels() -> ModuleType:
    return import_module("lightning_sparse_rnn.optim.steps_triton")
