"""The recurrence of an LSTM on a GPU: a product and one kernel for each time step, forward and backward."""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_sparse_rnn.models.kernels.half_products import product, range_scale
from lightning_sparse_rnn.models.kernels.triton_functions import load_sum, sigmoid, store_scaled, tanh
from lightning_sparse_rnn.models.kernels.triton_launch import launcher

__all__ = ["backward", "forward"]

_BLOCK = 256


def forward(inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (time + 1, columns, features), the first of them ``h``; cells likewise; gates (time, columns, rows).

    All in float32. Without ``keep`` there are no gates, and of the cells the last alone.
    """
    (steps, columns, rows), features = inputs.shape, h.size(-1)
    inputs = inputs.contiguous()
    outputs = inputs.new_empty(steps + 1, columns, features, dtype=torch.float32)
    outputs[0] = h
    kept = steps if keep else 0
    gates = inputs.new_empty(kept, columns, rows, dtype=torch.float32)
    cells = inputs.new_empty(kept + 1, columns, features, dtype=torch.float32)
    cells[0] = c
    # What the next product reads: the output, in the weight's precision.
    apart = weight.dtype != outputs.dtype
    seen = outputs[0].to(weight.dtype)
    of_cell = _launcher(_forward_cell, columns, features)
    for step in range(steps):
        old, new = (cells[step], cells[step + 1]) if keep else (cells[0], cells[0])
        sums = product(seen, weight.t())
        seen = seen if apart else outputs[step + 1]
        of_cell(
            sums,
            inputs[step],
            old,
            new,
            outputs[step + 1],
            seen,
            gates[step] if keep else new,
            features,
            KEEP=keep,
            APART=apart,
        )
    return outputs, cells, gates


def backward(
    grad_outputs: Tensor | None, grad_cell: Tensor | None, cells: Tensor, gates: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of what the gates are computed from (time, columns, rows), of h and of c, in float32.

    Args:
        grad_outputs: (time, columns, features), or None for zeros.
        grad_cell: that of the last cell, (columns, features), or None for zeros.
        cells: as `forward` returns them.
        gates: likewise.
        weight: (rows, features).
    """
    steps, columns, _ = gates.shape
    features, dtype = cells.size(-1), weight.dtype
    dgates = torch.empty_like(gates)
    dc = torch.zeros_like(cells[0]) if grad_cell is None else grad_cell.to(cells.dtype, copy=True).contiguous()
    to_outputs = dc if grad_outputs is None else grad_outputs.contiguous()
    scale, inverse = range_scale(to_outputs)
    apart = dtype != dgates.dtype
    seen = torch.empty_like(dgates[0], dtype=dtype) if apart else dgates[0]
    back = torch.zeros_like(dc)
    of_cell = _launcher(_backward_cell, columns, features)
    for step in reversed(range(steps)):
        seen = seen if apart else dgates[step]
        of_cell(
            back,
            to_outputs if grad_outputs is None else to_outputs[step],
            dc,
            gates[step],
            cells[step],
            cells[step + 1],
            dgates[step],
            seen,
            scale,
            inverse,
            features,
            GRAD=grad_outputs is not None,
            APART=apart,
        )
        back = product(seen, weight)
    return dgates, back.float() * inverse if apart else back, dc


def _launcher(kernel: Any, columns: int, features: int) -> Callable[..., None]:
    return launcher(kernel, (columns, triton.cdiv(features, _BLOCK)), BLOCK=_BLOCK)


@triton.jit
def _forward_cell(
    sums,
    addend,
    old,
    new,
    output,
    seen,
    gate,
    features,
    KEEP: tl.constexpr,
    APART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column, feature = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = feature < features
    row = column * 4 * features + feature
    sums += row
    addend += row
    i = sigmoid(load_sum(sums, addend, there, 0.0))
    f = sigmoid(load_sum(sums + features, addend + features, there, 0.0))
    g = tanh(load_sum(sums + 2 * features, addend + 2 * features, there, 0.0))
    o = sigmoid(load_sum(sums + 3 * features, addend + 3 * features, there, 0.0))
    at = column * features + feature
    cell = f * tl.load(old + at, there) + i * g
    h = o * tanh(cell)
    tl.store(new + at, cell, there)
    tl.store(output + at, h, there)
    if APART:
        tl.store(seen + at, h, there)
    if KEEP:
        gate += row
        tl.store(gate, i, there)
        tl.store(gate + features, f, there)
        tl.store(gate + 2 * features, g, there)
        tl.store(gate + 3 * features, o, there)


@triton.jit
def _backward_cell(
    back,
    grad,
    dc,
    gate,
    old,
    new,
    dgate,
    seen,
    scale,
    inverse,
    features,
    GRAD: tl.constexpr,
    APART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column, feature = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = feature < features
    row = column * 4 * features + feature
    at = column * features + feature
    gate += row
    dgate += row
    i, f = tl.load(gate, there), tl.load(gate + features, there)
    g, o = tl.load(gate + 2 * features, there), tl.load(gate + 3 * features, there)
    to_output = tl.load(back + at, there).to(tl.float32)
    if APART:
        to_output *= tl.load(inverse)
    if GRAD:
        to_output += tl.load(grad + at, there).to(tl.float32)
    bounded = tanh(tl.load(new + at, there))
    to_cell = tl.load(dc + at, there) + to_output * o * (1 - bounded * bounded)
    tl.store(dc + at, to_cell * f, there)
    to_i = to_cell * g * i * (1 - i)
    to_f = to_cell * tl.load(old + at, there) * f * (1 - f)
    to_g = to_cell * i * (1 - g * g)
    to_o = to_output * bounded * o * (1 - o)
    tl.store(dgate, to_i, there)
    tl.store(dgate + features, to_f, there)
    tl.store(dgate + 2 * features, to_g, there)
    tl.store(dgate + 3 * features, to_o, there)
    if APART:
        by = tl.load(scale)
        seen += row
        store_scaled(seen, to_i, by, there)
        store_scaled(seen + features, to_f, by, there)
        store_scaled(seen + 2 * features, to_g, by, there)
        store_scaled(seen + 3 * features, to_o, by, there)
