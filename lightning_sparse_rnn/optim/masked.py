"""Masks for optimizers that know nothing of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Masking", "forget"]


class Masking:
    """After each step of an optimizer that knows nothing of masks, sets its inactive weights to zero."""

    def __init__(self, parameters: Sequence[nn.Parameter], masks: Sequence[Tensor]) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._masks = list(masks)

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        torch._foreach_mul_(self._parameters, self._masks)


def forget(optimizer: Optimizer, masks: Mapping[Tensor, Tensor], born: Mapping[Tensor, Tensor]) -> None:
    """Zero what an optimizer remembers, element by element, of weights that are not live or have just been born.

    A parameter that is not in ``born`` has no weights that were.
    """
    for parameter, state in optimizer.state.items():
        if parameter in masks:
            for value in state.values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.mul_(masks[parameter])
                    if parameter in born:
                        value.masked_fill_(born[parameter], 0)
