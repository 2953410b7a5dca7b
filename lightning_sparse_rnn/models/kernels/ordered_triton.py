"""The recurrence of an ordered-neurons LSTM on a GPU: a product and one kernel for each time step.

What `ordered_recurrence` does in a dozen and a half small kernels a step, forward and backward, Triton makes one of. A
program has one column's cell: chunks in rows, the neurons of a chunk side by side.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_sparse_rnn.models.kernels.triton_functions import load_sum, sigmoid, tanh
from lightning_sparse_rnn.models.kernels.triton_launch import launcher

__all__ = ["backward", "forward"]


def forward(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, chunks: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `ordered_recurrence._forward`, in float32; without `keep` there are no gates."""
    (steps, columns, rows), features = inputs.shape, h.size(-1)
    inputs = inputs.contiguous()
    outputs = inputs.new_empty(steps + 1, columns, features, dtype=torch.float32)
    outputs[0] = h
    kept = steps if keep else 0
    gates = inputs.new_empty(kept, columns, rows, dtype=torch.float32)
    cells = inputs.new_empty(kept + 1, columns, features, dtype=torch.float32)
    cells[0] = c
    of_cell = _launcher(_forward_cell, columns, chunks, features)
    for step in range(steps):
        old, new = (cells[step], cells[step + 1]) if keep else (cells[0], cells[0])
        of_cell(
            torch.mm(outputs[step].to(weight.dtype), weight.t()),
            inputs[step],
            old,
            new,
            outputs[step + 1],
            gates[step] if keep else new,
            chunks,
            features // chunks,
            KEEP=keep,
        )
    return outputs, cells, gates


def backward(
    grad_outputs: Tensor | None,
    grad_cell: Tensor | None,
    cells: Tensor,
    gates: Tensor,
    weight: Tensor,
    chunks: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `ordered_recurrence._backward_to_gates`, in float32."""
    steps, columns, _ = gates.shape
    features = cells.size(-1)
    if grad_outputs is not None:
        grad_outputs = grad_outputs.contiguous()
    dgates = torch.empty_like(gates)
    dc = torch.zeros_like(cells[0]) if grad_cell is None else grad_cell.to(cells.dtype, copy=True).contiguous()
    dh = torch.zeros_like(dc, dtype=weight.dtype)
    of_cell = _launcher(_backward_cell, columns, chunks, features)
    for step in reversed(range(steps)):
        of_cell(
            dh,
            dh if grad_outputs is None else grad_outputs[step],
            dc,
            gates[step],
            cells[step],
            cells[step + 1],
            dgates[step],
            chunks,
            features // chunks,
            GRAD=grad_outputs is not None,
        )
        dh = torch.mm(dgates[step].to(weight.dtype), weight)
    return dgates, dh.to(dc.dtype), dc


def _launcher(kernel: Any, columns: int, chunks: int, features: int) -> Callable[..., None]:
    tile = triton.next_power_of_2(chunks), triton.next_power_of_2(features // chunks)
    warps = min(max(tile[0] * tile[1] // 256, 1), 16)
    return launcher(kernel, (columns,), CHUNKS=tile[0], NEURONS=tile[1], num_warps=warps)


@triton.jit
def _places(chunks, neurons, CHUNKS: tl.constexpr, NEURONS: tl.constexpr):
    """The chunks and which there are, where the neurons are in a column, and which there are."""
    chunk, neuron = tl.arange(0, CHUNKS), tl.arange(0, NEURONS)
    of_chunk = chunk < chunks
    there = of_chunk[:, None] & (neuron < neurons)[None, :]
    return chunk, of_chunk, chunk[:, None] * neurons + neuron[None, :], there


@triton.jit
def _softmax(x):
    odds = tl.exp(x - tl.max(x, 0))
    return odds / tl.sum(odds, 0)


@triton.jit
def _forward_cell(
    product,
    addend,
    old,
    new,
    output,
    gate,
    chunks,
    neurons,
    KEEP: tl.constexpr,
    CHUNKS: tl.constexpr,
    NEURONS: tl.constexpr,
):
    chunk, of_chunk, place, there = _places(chunks, neurons, CHUNKS, NEURONS)
    features = chunks * neurons
    row = tl.program_id(0) * (2 * chunks + 4 * features)
    product += row
    addend += row
    gate += row
    # Lanes beyond the chunks: nothing after the softmax.
    to_in = _softmax(load_sum(product + chunk, addend + chunk, of_chunk, -float("inf")))
    to_forget = _softmax(load_sum(product + chunks + chunk, addend + chunks + chunk, of_chunk, -float("inf")))
    at = 2 * chunks + place
    product += at
    addend += at
    o = sigmoid(load_sum(product, addend, there, 0.0))
    g = tanh(load_sum(product + features, addend + features, there, 0.0))
    i = sigmoid(load_sum(product + 2 * features, addend + 2 * features, there, 0.0))
    f = sigmoid(load_sum(product + 3 * features, addend + 3 * features, there, 0.0))
    if KEEP:
        tl.store(gate + chunk, to_in, of_chunk)
        tl.store(gate + chunks + chunk, to_forget, of_chunk)
        tl.store(gate + at, o, there)
        tl.store(gate + at + features, g, there)
        tl.store(gate + at + 2 * features, i, there)
        tl.store(gate + at + 3 * features, f, there)
    in_master = (1 - tl.cumsum(to_in, 0))[:, None]
    forget_master = tl.cumsum(to_forget, 0)[:, None]
    overlap = in_master * forget_master
    neuron_at = tl.program_id(0) * features + place
    forget = f * overlap + (forget_master - overlap)
    admit = i * overlap + (in_master - overlap)
    cell = forget * tl.load(old + neuron_at, there, 0.0) + admit * g
    tl.store(new + neuron_at, cell, there)
    tl.store(output + neuron_at, o * tanh(cell), there)


@triton.jit
def _backward_cell(
    dh,
    grad,
    dc,
    gate,
    old,
    new,
    dgate,
    chunks,
    neurons,
    GRAD: tl.constexpr,
    CHUNKS: tl.constexpr,
    NEURONS: tl.constexpr,
):
    chunk, of_chunk, place, there = _places(chunks, neurons, CHUNKS, NEURONS)
    features = chunks * neurons
    gate += tl.program_id(0) * (2 * chunks + 4 * features)
    dgate += tl.program_id(0) * (2 * chunks + 4 * features)
    neuron_at = tl.program_id(0) * features + place
    to_in = tl.load(gate + chunk, of_chunk, 0.0)
    to_forget = tl.load(gate + chunks + chunk, of_chunk, 0.0)
    at = 2 * chunks + place
    o = tl.load(gate + at, there, 0.0)
    g = tl.load(gate + at + features, there, 0.0)
    i = tl.load(gate + at + 2 * features, there, 0.0)
    f = tl.load(gate + at + 3 * features, there, 0.0)
    in_master = (1 - tl.cumsum(to_in, 0))[:, None]
    forget_master = tl.cumsum(to_forget, 0)[:, None]
    overlap = in_master * forget_master
    before = tl.load(old + neuron_at, there, 0.0)
    bounded = tanh(tl.load(new + neuron_at, there, 0.0))
    # Both are zero beyond the neurons, so that sums over a chunk have nothing of those.
    to_output = tl.load(dh + neuron_at, there, 0.0).to(tl.float32)
    if GRAD:
        to_output += tl.load(grad + neuron_at, there, 0.0).to(tl.float32)
    to_cell = tl.load(dc + neuron_at, there, 0.0) + to_output * o * (1 - bounded * bounded)
    tl.store(dgate + at, to_output * bounded * o * (1 - o), there)
    tl.store(dgate + at + features, to_cell * (i * overlap + (in_master - overlap)) * (1 - g * g), there)
    tl.store(dgate + at + 2 * features, to_cell * g * overlap * i * (1 - i), there)
    tl.store(dgate + at + 3 * features, to_cell * before * overlap * f * (1 - f), there)
    tl.store(dc + neuron_at, to_cell * (f * overlap + (forget_master - overlap)), there)
    # The master gates act on all neurons of a chunk: ∂c/∂ĩ, negated as ĩ = 1 − cumsum, and ∂c/∂f̃.
    shared = before * (f - 1) + g * (i - 1)
    _store_through_softmax(dgate + chunk, to_in, tl.sum(to_cell * (-g - shared * forget_master), 1), of_chunk)
    _store_through_softmax(
        dgate + chunks + chunk, to_forget, tl.sum(to_cell * (before + shared * in_master), 1), of_chunk
    )


@triton.jit
def _store_through_softmax(at, p, dcumax, there):
    """Store the gradient of what a cumax was computed from, whose softmax was `p`."""
    weighted = p * (tl.sum(dcumax, 0) - tl.cumsum(dcumax, 0) + dcumax)
    tl.store(at, weighted - p * tl.sum(weighted, 0), there)
