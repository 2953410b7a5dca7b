"""Torch's LSTM and GRU layers, evaluated on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.models.kernels.linear import linear, made_into_a_graph, repeated_product
from lightning_sparse_rnn.models.kernels.state import State, map_state
from lightning_sparse_rnn.models.kernels.untouched import untouched

__all__ = ["evaluate_layers", "evaluates_here", "run_recurrent"]


# From so many features on it is faster than torch, measured on an AMD EPYC: for LSTMs of less torch has a kernel.
_FASTER_FROM = {"LSTM": 640, "GRU": 200}


def evaluates_here(layers: nn.Module, x: Tensor) -> bool:
    """Whether `evaluate_layers` is right for `layers` on `x`, and faster: on a CPU, where there are no gradients."""
    if not isinstance(layers, (nn.LSTM, nn.GRU)) or not untouched(layers):
        return False
    if layers.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or made_into_a_graph():
        return False
    large = layers.hidden_size >= _FASTER_FROM[layers.mode] and x.dim() == 3 and min(x.shape[:2]) > 1
    return large and x.is_cpu and x.dtype == torch.float32


def evaluate_layers(layers: nn.LSTM | nn.GRU, x: Tensor, state: State = None) -> tuple[Tensor, State]:
    """`layers(x, state)` for layers in one direction, x of shape (time, columns, features).

    The hidden weight is laid out once for all steps, which takes up to half off the time that torch's own needs.
    """
    if state is None:
        zeros = x.new_zeros(layers.num_layers, x.size(1), layers.hidden_size)
        state = (zeros, zeros) if isinstance(layers, nn.LSTM) else zeros
    return _lstm(layers, x, state) if isinstance(layers, nn.LSTM) else _gru(layers, x, state)


def _lstm(layers: nn.LSTM, x: Tensor, state: State) -> tuple[Tensor, State]:
    ends = []
    for layer, h, c in zip(range(layers.num_layers), *state, strict=True):
        weight_ih, weight_hh, bias_ih, bias_hh = layers.all_weights[layer]
        inputs = linear(x, weight_ih, bias_ih + bias_hh)
        from_hidden = repeated_product(weight_hh, x.size(1), len(x))
        x = inputs.new_empty(*x.shape[:2], layers.hidden_size)
        for gates, output in zip(inputs, x, strict=True):
            i, f, g, o = from_hidden(h).add_(gates).chunk(4, dim=-1)
            c = f.sigmoid_() * c + i.sigmoid_() * g.tanh_()
            h = torch.mul(o.sigmoid_(), c.tanh(), out=output)
        ends.append((h, c))
    hs, cs = zip(*ends, strict=True)
    return x, (torch.stack(hs), torch.stack(cs))


def _gru(layers: nn.GRU, x: Tensor, state: State) -> tuple[Tensor, State]:
    size, ends = layers.hidden_size, []
    for layer, h in zip(range(layers.num_layers), state, strict=True):
        weight_ih, weight_hh, bias_ih, bias_hh = layers.all_weights[layer]
        inputs = linear(x, weight_ih, bias_ih)
        by_hidden = repeated_product(weight_hh, x.size(1), len(x))
        x = inputs.new_empty(*x.shape[:2], size)
        for from_input, output in zip(inputs, x, strict=True):
            from_hidden = by_hidden(h).add_(bias_hh)
            r, z = from_hidden[:, : 2 * size].add_(from_input[:, : 2 * size]).sigmoid_().chunk(2, dim=-1)
            n = torch.addcmul(from_input[:, 2 * size :], r, from_hidden[:, 2 * size :]).tanh_()
            h = torch.lerp(n, h, z, out=output)
        ends.append(h)
    return x, torch.stack(ends)


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
