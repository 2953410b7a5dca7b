"""Torch's LSTM and GRU layers on a GPU, one after the other."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.models.kernels.gru_recurrence import gru_layer
from lightning_sparse_rnn.models.kernels.linear import made_into_a_graph
from lightning_sparse_rnn.models.kernels.lstm_recurrence import lstm_layer
from lightning_sparse_rnn.models.kernels.state import State, map_state
from lightning_sparse_rnn.models.kernels.torch_layers import run_recurrent
from lightning_sparse_rnn.models.kernels.triton_launch import fused_cells
from lightning_sparse_rnn.models.kernels.untouched import untouched

__all__ = ["expect_scattered_weights", "run_layer", "run_stacked", "runs_fused"]

_DEVICE = "cuda"


def run_stacked(layers: nn.LSTM | nn.GRU, x: Tensor, state: State, fused: bool) -> tuple[Tensor, State]:
    """``layers(x, state)`` for layers in one direction, x of shape (time, columns, features).

    On a GPU, where layers have dropout between them, they are called one by one and the masks are drawn by torch. cuDNN
    would draw them from a state of its own, which no checkpoint can hold and no CUDA graph can renew.

    Args:
        layers: the module; if it is hooked or patched it is called as it is.
        x: the input.
        state: as the module takes it; None: zeros.
        fused: on a GPU, run each layer by `lstm_layer` or `gru_layer` where Triton works, and not by cuDNN.
    """
    draws = layers.training and layers.dropout > 0 and layers.num_layers > 1
    if x.device.type != _DEVICE or not (draws or fused) or made_into_a_graph() or not untouched(layers):
        return run_recurrent(layers, x, state)
    if state is None:
        zeros = x.new_zeros(layers.num_layers, x.size(1), layers.hidden_size)
        state = (zeros, zeros) if isinstance(layers, nn.LSTM) else zeros
    ends = []
    for layer in range(layers.num_layers):
        if layer:
            x = F.dropout(x, layers.dropout, layers.training)
        before = map_state(lambda part, layer=layer: part[layer : layer + 1], state)  # type: ignore[misc]
        x, end = run_layer(layers.mode, x, before, layers.all_weights[layer], layers.training, fused)
        ends.append(end)
    if isinstance(state, Tensor):
        return x, torch.cat(ends)
    return x, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))


def run_layer(
    mode: str, x: Tensor, state: State, weights: Sequence[Tensor], training: bool, fused: bool
) -> tuple[Tensor, State]:
    """One layer of an "LSTM" or a "GRU", from a state that is not None.

    Args:
        mode: which of the two.
        x: (time, columns, features).
        state: each part of it (1, columns, features).
        weights: input and hidden weight, input and hidden bias, as torch orders them.
        training: cuDNN keeps what a backward pass needs only if so.
        fused: as in `run_stacked`.
    """
    if fused and runs_fused(mode, x, weights):
        layer: Any = lstm_layer if mode == "LSTM" else gru_layer
        output, end = layer(x, state, *weights)
        return output, end

    if x.is_cuda:
        expect_scattered_weights()

    def by_torch(x: Tensor, state: State) -> tuple[Tensor, State]:
        if mode == "LSTM":
            output, h, c = torch.lstm(x, state, list(weights), True, 1, 0.0, training, False, False)
            return output, (h, c)
        output, h = torch.gru(x, state, list(weights), True, 1, 0.0, training, False, False)
        return output, h

    return run_recurrent(by_torch, x, state)


def runs_fused(mode: str, x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether there are kernels of Triton's for layers of this mode, input and weights."""
    if x.device.type != _DEVICE or made_into_a_graph():
        return False
    return fused_cells(f"{mode.lower()}_triton", x, *weights) is not None


@functools.cache
def expect_scattered_weights() -> None:
    """Be silent about weights that cuDNN has to gather: a matrix just dropped, or one of several layers.

    Once for the process: warnings caught at every step would make Python repeat all others at every step.
    """
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
