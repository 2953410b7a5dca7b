"""ŵ of one parameter: the mean of each weight over the steps since its birth (Liu et al. 2021, section 3.3).

A weight born at step bᵢ has, after step K,

    ŵᵢ = 1/(K − bᵢ) · Σ_{t = bᵢ+1..K} wᵢ,ₜ.

To add to it at every step would read and write a mean and a birth each time. So a step only adds wₜ to a running sum,
and the mean is brought up to date when it is asked for, which is called folding. The entry of a parameter among the
states of an optimizer is

    "mean"  ŵ as of the last fold, in the parameter's shape and at least single precision
    "born"  b: one whole number for all weights, or an int32 tensor of the parameter's shape
    "sum"   Σ wₜ over the steps since the last fold, in the mean's dtype; made by the first of these steps
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Average", "begin", "bring_up", "copied", "current", "give_birth", "restrict", "running_sum"]

Average = dict[str, Any]


def begin(parameter: Tensor, step: int) -> Average:
    """The average of a whole parameter that starts at ``step``."""
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return {"mean": parameter.detach().to(dtype, copy=True), "born": step}


def running_sum(average: Average) -> Tensor:
    """The sum that steps add to."""
    if "sum" not in average:
        average["sum"] = torch.zeros_like(average["mean"])
    total: Tensor = average["sum"]
    return total


def bring_up(average: Average, step: int, folded: int) -> None:
    """Fold the sum, of the steps from ``folded`` to ``step``, into the mean, and set it to zero.

    All weights born since the last fold were born right at it.
    """
    _fold(average["mean"], average["sum"], average["born"], step, folded)
    average["sum"].zero_()


def current(average: Average, step: int, folded: int) -> Tensor:
    """ŵ as of ``step``: the mean itself if there is nothing to fold, else a new tensor."""
    mean: Tensor = average["mean"]
    if "sum" in average and step != folded:
        mean = mean.clone()
        _fold(mean, average["sum"].clone(), average["born"], step, folded)
    return mean


def give_birth(average: Average, parameter: Tensor, newborn: Tensor, step: int) -> None:
    """Let the averages of the ``newborn`` weights begin anew at ``step``, at which the mean is."""
    if isinstance(average["born"], int):
        average["born"] = torch.full_like(parameter, average["born"], dtype=torch.int32)
    average["born"].masked_fill_(newborn, step)
    torch.where(newborn, parameter, average["mean"], out=average["mean"])


def restrict(average: Average, mask: Tensor) -> None:
    """Set what is no longer live to zero."""
    for name in ("mean", "sum"):
        if name in average:
            average[name].mul_(mask)


def copied(average: Average, device: torch.device) -> Average:
    """The same average on a device, with memory of its own."""
    return {
        name: value.to(device, copy=True) if isinstance(value, Tensor) else value for name, value in average.items()
    }


def _fold(mean: Tensor, total: Tensor, born: Tensor | int, step: int, folded: int) -> None:
    """``mean`` becomes mean + (total − n·mean) / (K − b), with n the steps in ``total``, which is overwritten."""
    mean.add_(total.sub_(mean, alpha=step - folded).div_(step - born))
