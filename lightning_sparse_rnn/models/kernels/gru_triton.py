"""The recurrence of a GRU on a GPU: a product and one kernel for each time step, forward and backward."""

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


def forward(inputs: Tensor, h: Tensor, weight: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """Outputs (time + 1, columns, features), the first of them ``h``, and gates (time, columns, 4·features).

    The gates are r, z, n and the hidden state's share of n, in float32; without ``keep`` there are none.
    """
    (steps, columns, _), features = inputs.shape, h.size(-1)
    inputs, bias = inputs.contiguous(), bias.contiguous()
    outputs = inputs.new_empty(steps + 1, columns, features, dtype=torch.float32)
    outputs[0] = h
    gates = inputs.new_empty(steps if keep else 0, columns, 4 * features, dtype=torch.float32)
    # What the next product reads: the output, in the weight's precision.
    apart = weight.dtype != outputs.dtype
    seen = outputs[0].to(weight.dtype)
    of_cell = _launcher(_forward_cell, columns, features)
    for step in range(steps):
        sums = product(seen, weight.t())
        seen = seen if apart else outputs[step + 1]
        of_cell(
            sums,
            inputs[step],
            bias,
            outputs[step],
            outputs[step + 1],
            seen,
            gates[step] if keep else outputs,
            features,
            KEEP=keep,
            APART=apart,
        )
    return outputs, gates


def backward(grad: Tensor, outputs: Tensor, gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the inputs and of the hidden state's products (time, columns, 3·features), and of h; float32.

    Args:
        grad: that of the outputs, (time, columns, features).
        outputs: as `forward` returns them.
        gates: likewise.
        weight: (3·features, features).
    """
    steps, columns, _ = gates.shape
    features, dtype = outputs.size(-1), weight.dtype
    grad = grad.contiguous()
    to_inputs = outputs.new_empty(steps, columns, 3 * features)
    to_sums = torch.empty_like(to_inputs)
    scale, inverse = range_scale(grad)
    apart = dtype != to_sums.dtype
    seen = torch.empty_like(to_sums[0], dtype=dtype) if apart else to_sums[0]
    dh = torch.zeros_like(outputs[0])
    back = torch.zeros_like(dh)
    of_cell = _launcher(_backward_cell, columns, features)
    for step in reversed(range(steps)):
        seen = seen if apart else to_sums[step]
        of_cell(
            back,
            grad[step],
            dh,
            gates[step],
            outputs[step],
            to_inputs[step],
            to_sums[step],
            seen,
            scale,
            inverse,
            features,
            APART=apart,
        )
        back = product(seen, weight)
    return to_inputs, to_sums, dh + (back.float() * inverse if apart else back)


def _launcher(kernel: Any, columns: int, features: int) -> Callable[..., None]:
    return launcher(kernel, (columns, triton.cdiv(features, _BLOCK)), BLOCK=_BLOCK)


@triton.jit
def _forward_cell(
    sums,
    addend,
    bias,
    old,
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
    row = column * 3 * features + feature
    sums += row
    addend += row
    bias += feature
    of_r = load_sum(sums, bias, there, 0.0) + tl.load(addend, there, 0.0).to(tl.float32)
    of_z = load_sum(sums + features, bias + features, there, 0.0)
    of_z += tl.load(addend + features, there, 0.0).to(tl.float32)
    hidden = load_sum(sums + 2 * features, bias + 2 * features, there, 0.0)
    r, z = sigmoid(of_r), sigmoid(of_z)
    n = tanh(tl.load(addend + 2 * features, there, 0.0).to(tl.float32) + r * hidden)
    at = column * features + feature
    h = n + z * (tl.load(old + at, there) - n)
    tl.store(output + at, h, there)
    if APART:
        tl.store(seen + at, h, there)
    if KEEP:
        gate += column * 4 * features + feature
        tl.store(gate, r, there)
        tl.store(gate + features, z, there)
        tl.store(gate + 2 * features, n, there)
        tl.store(gate + 3 * features, hidden, there)


@triton.jit
def _backward_cell(
    back,
    grad,
    dh,
    gate,
    old,
    to_inputs,
    to_sums,
    seen,
    scale,
    inverse,
    features,
    APART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column, feature = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = feature < features
    row = column * 3 * features + feature
    at = column * features + feature
    gate += column * 4 * features + feature
    r, z = tl.load(gate, there), tl.load(gate + features, there)
    n, hidden = tl.load(gate + 2 * features, there), tl.load(gate + 3 * features, there)
    from_sums = tl.load(back + at, there).to(tl.float32)
    if APART:
        from_sums *= tl.load(inverse)
    to_output = tl.load(dh + at, there) + from_sums + tl.load(grad + at, there).to(tl.float32)
    tl.store(dh + at, to_output * z, there)
    to_z = to_output * (tl.load(old + at, there) - n) * z * (1 - z)
    to_n = to_output * (1 - z) * (1 - n * n)
    to_r = to_n * hidden * r * (1 - r)
    to_inputs += row
    to_sums += row
    tl.store(to_inputs, to_r, there)
    tl.store(to_inputs + features, to_z, there)
    tl.store(to_inputs + 2 * features, to_n, there)
    tl.store(to_sums, to_r, there)
    tl.store(to_sums + features, to_z, there)
    tl.store(to_sums + 2 * features, to_n * r, there)
    if APART:
        by = tl.load(scale)
        seen += row
        store_scaled(seen, to_r, by, there)
        store_scaled(seen + features, to_z, by, there)
        store_scaled(seen + 2 * features, to_n * r, by, there)
