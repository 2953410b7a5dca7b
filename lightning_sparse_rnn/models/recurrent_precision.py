"""The precision in which cuDNN runs recurrent layers under autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.models.network import State, map_state

__all__ = ["run_recurrent"]

_DEVICE = "cuda"


def run_recurrent(layers: Callable[..., Any], x: Tensor, state: State) -> tuple[Tensor, State]:
    """`layers(x, state)`, in float32 where a GPU's autocast is to bfloat16.

    There torch would run cuDNN's layers in float16, whatever autocast's own type, and gradients that are small vanish
    in it without the loss scaling that goes with float16 alone.
    """
    in_bfloat16 = torch.is_autocast_enabled(_DEVICE) and torch.get_autocast_dtype(_DEVICE) == torch.bfloat16
    if x.device.type != _DEVICE or not in_bfloat16:
        output, state = layers(x, state)
        return output, state
    with torch.autocast(_DEVICE, enabled=False):
        output, state = layers(x.float(), map_state(Tensor.float, state))
        return output, state
