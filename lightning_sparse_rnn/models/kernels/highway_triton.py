"""The recurrence of a highway network on a GPU: a product and one kernel for each depth of a time step.

What `highway_recurrence` does in half a dozen small kernels a depth, forward and backward, Triton makes one of.
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

_BLOCK = 256


def forward(
    inputs: Tensor, state: Tensor, mask: Tensor | None, keep: bool, *parameters: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `highway_recurrence._forward`, in float32; without `keep` there are no gates."""
    depth = len(parameters) // 2 + 1
    weights, biases = parameters[:depth], [bias.contiguous() for bias in parameters[depth:]]
    (steps, columns, rows), features = inputs.shape, state.size(-1)
    inputs = inputs.contiguous()
    mask = mask if mask is None else mask.contiguous()
    chain = inputs.new_empty(steps + 1, columns, features, dtype=torch.float32)
    chain[0] = state
    gates = inputs.new_empty(depth, steps if keep else 0, columns, rows, dtype=torch.float32)
    deeper = inputs.new_empty(depth - 1, steps if keep else 1, columns, features, dtype=torch.float32)
    # What the next product reads, unless it is the state itself: the state masked, in the weights' precision.
    dtype = weights[0].dtype
    apart = mask is not None or dtype != chain.dtype
    seen = (chain[0] if mask is None else chain[0] * mask).to(dtype)
    of_cell = _launcher(_forward_cell, columns, features)
    for step in range(steps):
        at = step if keep else 0
        entering = [chain[step], *deeper[:, at], chain[step + 1]]
        for d in range(depth):
            s, out, addend = entering[d], entering[d + 1], biases[d - 1] if d else inputs[step]
            product = torch.mm(seen, weights[d].t())
            seen = seen if apart else out
            of_cell(
                product,
                addend,
                s,
                s if mask is None else mask,
                out,
                seen,
                gates[d, step] if keep else out,
                features,
                rows if d == 0 else 0,
                GATES=rows // features,
                KEEP=keep,
                MASKED=mask is not None,
                APART=apart,
            )
    return chain, deeper, gates


def backward(
    grad: Tensor, chain: Tensor, deeper: Tensor, gates: Tensor, mask: Tensor | None, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """As `highway_recurrence._backward_to_gates`, in float32."""
    depth, steps, columns, rows = gates.shape
    features, dtype = chain.size(-1), weights[0].dtype
    grad = grad.contiguous()
    mask = mask if mask is None else mask.contiguous()
    dgates = torch.empty_like(gates)
    ds = torch.zeros_like(chain[0])
    # What the cell after the last would have left.
    back, after = torch.zeros_like(ds, dtype=dtype), gates[-1, -1]
    of_cell = _launcher(_backward_cell, columns, features)
    for step in reversed(range(steps)):
        for d in reversed(range(depth)):
            of_cell(
                ds,
                back,
                after,
                ds if mask is None else mask,
                grad[step],
                gates[d, step],
                deeper[d - 1, step] if d else chain[step],
                dgates[d, step],
                features,
                GATES=rows // features,
                MASKED=mask is not None,
                LAST=d == depth - 1,
            )
            back = torch.mm(dgates[d, step].to(dtype), weights[d])
            after = gates[d, step]
    carry = 1 - after[:, features:] if rows == 2 * features else after[:, 2 * features :]
    return dgates, torch.addcmul(back if mask is None else back * mask, ds, carry)


def _launcher(kernel: Any, columns: int, features: int) -> Callable[..., None]:
    return launcher(kernel, (columns, triton.cdiv(features, _BLOCK)), BLOCK=_BLOCK)


@triton.jit
def _forward_cell(
    product,
    addend,
    s,
    mask,
    out,
    seen,
    gate,
    features,
    addend_rows,  # from one column to the next; 0: all have the same
    GATES: tl.constexpr,
    KEEP: tl.constexpr,
    MASKED: tl.constexpr,
    APART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column, feature = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = feature < features
    row = column * GATES * features + feature
    product += row
    addend += column * addend_rows + feature
    gate += row
    at = column * features + feature
    h = tanh(load_sum(product, addend, there, 0.0))
    t = sigmoid(load_sum(product + features, addend + features, there, 0.0))
    old = tl.load(s + at, there)
    if KEEP:
        tl.store(gate, h, there)
        tl.store(gate + features, t, there)
    if GATES == 2:
        new = old + t * (h - old)
    else:
        c = sigmoid(load_sum(product + 2 * features, addend + 2 * features, there, 0.0))
        if KEEP:
            tl.store(gate + 2 * features, c, there)
        new = h * t + old * c
    tl.store(out + at, new, there)
    if APART:
        if MASKED:
            new *= tl.load(mask + at, there).to(tl.float32)
        tl.store(seen + at, new, there)


@triton.jit
def _backward_cell(
    ds,
    back,
    after,
    mask,
    grad,
    gate,
    s,
    dgate,
    features,
    GATES: tl.constexpr,
    MASKED: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """From the gradient that the later cell left, by its gates and its product, to that of this cell's gates."""
    column, feature = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = feature < features
    row = column * GATES * features + feature
    after += row
    gate += row
    dgate += row
    at = column * features + feature
    from_gates = tl.load(back + at, there).to(tl.float32)
    if MASKED:
        from_gates *= tl.load(mask + at, there).to(tl.float32)
    carry = 1 - tl.load(after + features, there) if GATES == 2 else tl.load(after + 2 * features, there)
    to_state = tl.load(ds + at, there) * carry + from_gates
    if LAST:
        to_state += tl.load(grad + at, there).to(tl.float32)
    tl.store(ds + at, to_state, there)
    h, t, old = tl.load(gate, there), tl.load(gate + features, there), tl.load(s + at, there)
    tl.store(dgate, to_state * t * (1 - h * h), there)
    slope = to_state * t * (1 - t)
    if GATES == 2:
        tl.store(dgate + features, slope * (h - old), there)
    else:
        tl.store(dgate + features, slope * h, there)
        c = tl.load(gate + 2 * features, there)
        tl.store(dgate + 2 * features, to_state * c * (1 - c) * old, there)
