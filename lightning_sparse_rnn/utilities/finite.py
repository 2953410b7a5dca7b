"""Whether tensors hold numbers alone: no NaN, and no infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["NotFiniteError", "check_finite", "first_not_finite"]


class NotFiniteError(ValueError):
    """Weights have NaN or infinities."""


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor of floating point that has a value of NaN or infinity, if there is one."""
    for name, tensor in tensors.items():
        # A sum is NaN or infinite if any term is, and takes a tenth of the time of looking at each.
        if tensor.is_floating_point() and not math.isfinite(tensor.detach().sum().item()) and not _all_finite(tensor):
            return name
    return None


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Make sure that weights are finite.

    Raises:
        NotFiniteError: one has NaN or infinities; the message says which.
    """
    name = first_not_finite(weights)
    if name is not None:
        nan = int(weights[name].isnan().sum())
        infinite = int(weights[name].isinf().sum())
        found = " and ".join(f"{count:,} {what}" for count, what in ((nan, "NaN"), (infinite, "infinite")) if count)
        raise NotFiniteError(
            f"Expected finite weights, got {name} with {found} of its {weights[name].numel():,} values. Training has "
            "diverged: take weights of before that, or train again with a lower learning rate or clipped gradients."
        )


def _all_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
