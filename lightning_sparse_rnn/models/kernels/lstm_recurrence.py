"""An LSTM layer on a GPU, with a recurrence and a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sparse_rnn.models.kernels.cuda_graphs import recorded
from lightning_sparse_rnn.models.kernels.half_products import factor_dtype
from lightning_sparse_rnn.models.kernels.linear import linear
from lightning_sparse_rnn.models.kernels.triton_launch import fused_cells

__all__ = ["lstm_layer"]


@torch.compiler.disable
def lstm_layer(
    x: Tensor, state: tuple[Tensor, Tensor], weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What `torch.nn.LSTM` computes in one layer, by one product and one kernel of Triton's a time step.

    Gates, cells and all sums are of float32; the factors of the recurrent products are what
    `half_products.factor_dtype` allows, and gradients are scaled for them. Only where `fused_cells` finds kernels.

    Args:
        x: (time, columns, input features).
        state: output and cell before the first step, each (1, columns, features).
        weight_ih: (4·features, input features), gates in the order input, forget, cell, output.
        weight_hh: (4·features, features).
        bias_ih: (4·features,).
        bias_hh: (4·features,).

    Returns:
        The outputs, (time, columns, features), and the last output and cell, each (1, columns, features).
    """
    inputs = linear(x, weight_ih, bias_ih + bias_hh)
    h, c = (part.squeeze(0) for part in state)
    outputs, cell = _LSTMRecurrence.apply(inputs, h, c, weight_hh, torch.is_grad_enabled())
    outputs, cell = outputs.to(x.dtype), cell.to(c.dtype)
    return outputs, (outputs[-1:].to(h.dtype, copy=True), cell.unsqueeze(0))


class _LSTMRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
        factors = weight.to(factor_dtype(inputs))
        outputs, cells, gates = _forward(inputs, h, c, factors, keep)
        ctx.save_for_backward(outputs, cells, gates, factors)
        ctx.input_dtypes = inputs.dtype, h.dtype, c.dtype, weight.dtype
        ctx.set_materialize_grads(False)
        return outputs[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor | None, grad_cell: Tensor | None) -> tuple[Tensor | None, ...]:
        dgates, dh, dc, dweight = _backward(grad_outputs, grad_cell, *ctx.saved_tensors)
        gradients = zip((dgates, dh, dc, dweight), ctx.input_dtypes, strict=True)
        return (*(gradient.to(dtype) for gradient, dtype in gradients), None)


@recorded
def _forward(inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    kernels = fused_cells("lstm_triton", inputs, h, c, weight)
    assert kernels is not None
    outputs, cells, gates = kernels.forward(inputs, h, c, weight, keep)
    return outputs, cells, gates


@recorded
def _backward(
    grad_outputs: Tensor | None,
    grad_cell: Tensor | None,
    outputs: Tensor,
    cells: Tensor,
    gates: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the inputs, h, c and the weight."""
    kernels = fused_cells("lstm_triton", cells, weight)
    assert kernels is not None
    dgates, dh, dc = kernels.backward(grad_outputs, grad_cell, cells, gates, weight)
    # In float32, whose range gradients need. A GPU rounds these factors as it is allowed to.
    dweight = linear(dgates.flatten(0, 1).t(), outputs[:-1].flatten(0, 1).t())
    return dgates, dh, dc, dweight
