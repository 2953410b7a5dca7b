"""A GRU layer on a GPU, with a recurrence and a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sparse_rnn.models.kernels.cuda_graphs import recorded
from lightning_sparse_rnn.models.kernels.half_products import factor_dtype
from lightning_sparse_rnn.models.kernels.linear import linear
from lightning_sparse_rnn.models.kernels.triton_launch import fused_cells

__all__ = ["gru_layer"]


@torch.compiler.disable
def gru_layer(
    x: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """What `torch.nn.GRU` computes in one layer, by one product and one kernel of Triton's a time step.

    Precisions are those of `lstm_recurrence.lstm_layer`. Only where `fused_cells` finds kernels.

    Args:
        x: (time, columns, input features).
        state: the output before the first step, (1, columns, features).
        weight_ih: (3·features, input features), gates in the order reset, update, new.
        weight_hh: (3·features, features).
        bias_ih: (3·features,).
        bias_hh: (3·features,).

    Returns:
        The outputs, (time, columns, features), and the last of them, (1, columns, features).
    """
    inputs = linear(x, weight_ih, bias_ih)
    h = state.squeeze(0)
    outputs = _GRURecurrence.apply(inputs, h, weight_hh, bias_hh, torch.is_grad_enabled()).to(x.dtype)
    return outputs, outputs[-1:].to(h.dtype, copy=True)


class _GRURecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, h: Tensor, weight: Tensor, bias: Tensor, keep: bool) -> Tensor:
        factors = weight.to(factor_dtype(inputs))
        outputs, gates = _forward(inputs, h, factors, bias, keep)
        ctx.save_for_backward(outputs, gates, factors)
        ctx.input_dtypes = inputs.dtype, h.dtype, weight.dtype, bias.dtype
        return outputs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = zip(_backward(grad, *ctx.saved_tensors), ctx.input_dtypes, strict=True)
        return (*(gradient.to(dtype) for gradient, dtype in gradients), None)


@recorded
def _forward(inputs: Tensor, h: Tensor, weight: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    kernels = fused_cells("gru_triton", inputs, h, weight)
    assert kernels is not None
    outputs, gates = kernels.forward(inputs, h, weight, bias, keep)
    return outputs, gates


@recorded
def _backward(grad: Tensor, outputs: Tensor, gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the inputs, h, the weight and the bias."""
    kernels = fused_cells("gru_triton", outputs, weight)
    assert kernels is not None
    to_inputs, to_sums, dh = kernels.backward(grad, outputs, gates, weight)
    # In float32, whose range gradients need. A GPU rounds these factors as it is allowed to.
    dweight = linear(to_sums.flatten(0, 1).t(), outputs[:-1].flatten(0, 1).t())
    return to_inputs, dh, dweight, to_sums.sum((0, 1))
