"""The recurrence of an ordered-neurons LSTM, with a backward pass of its own.

The gates' gradients are kept until the last step is done, and the hidden weight's is then one large product
instead of one small one for every time step; what does not depend on later steps is computed for all at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sparse_rnn.models.kernels.cuda_graphs import recorded
from lightning_sparse_rnn.models.kernels.linear import linear, repeated_product
from lightning_sparse_rnn.models.kernels.triton_launch import fused_cells

__all__ = ["ordered_recurrence"]


@torch.compiler.disable
def ordered_recurrence(inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
    """Outputs of every time step and the last cell state (Shen et al. 2019, equations 3 to 14).

    With cumax(x) = cumsum(softmax(x)), at each time step:

        (ĩ, f̃, o, g, i, f) = inputs[time] + weight·h, rows in this order
        ĩ = 1 − cumax(ĩ),  f̃ = cumax(f̃),  ω = f̃ ⊙ ĩ          one value for each chunk of neurons
        c ← (σ(f) ⊙ ω + f̃ − ω) ⊙ c + (σ(i) ⊙ ω + ĩ − ω) ⊙ tanh(g)
        h ← σ(o) ⊙ tanh(c)

    Args:
        inputs: the input's share of the gates, biases included, (time, columns, 2·chunks + 4·features).
        h: the output before the first step, (columns, features).
        c: the cell state before the first step, (columns, features).
        weight: (2·chunks + 4·features, features).
        chunks: number of chunks the neurons are divided into.

    Returns:
        The outputs, (time, columns, features), and the last cell state, (columns, features), float32 at least;
        the weight may be of lower precision.
    """
    return _OrderedRecurrence.apply(inputs, h, c, weight, chunks, torch.is_grad_enabled())


class _OrderedRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, chunks: int, keep: bool
    ) -> tuple[Tensor, Tensor]:
        outputs, cells, gates = _forward(inputs, h, c, weight, chunks, keep)
        ctx.save_for_backward(outputs, cells, gates, weight)
        ctx.chunks = chunks
        ctx.input_dtypes = inputs.dtype, h.dtype, c.dtype
        ctx.set_materialize_grads(False)
        return outputs[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor | None, grad_cell: Tensor | None) -> tuple[Tensor | None, ...]:
        dgates, dh, dc, dweight = _backward(grad_outputs, grad_cell, *ctx.saved_tensors, ctx.chunks)
        input_dtype, h_dtype, c_dtype = ctx.input_dtypes
        return dgates.to(input_dtype), dh.to(h_dtype), dc.to(c_dtype), dweight, None, None


@recorded
def _forward(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, chunks: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs (time + 1, columns, features), the first of them `h`, and of every time, or of one at most
    unless `keep`: cells, the one before included, and gates (time, columns, rows)."""
    if fused := fused_cells("ordered_triton", inputs, h, c, weight):
        outputs, cells, gates = fused.forward(inputs, h, c, weight, chunks, keep)
        return outputs, cells, gates
    (steps, columns, rows), features = inputs.shape, h.size(-1)
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    outputs = inputs.new_empty(steps + 1, columns, features, dtype=dtype)
    outputs[0] = h
    # Gates and cells are kept for the backward pass, or written over where there is none.
    kept = steps if keep else 1
    gates = inputs.new_empty(kept, columns, rows, dtype=dtype)
    cells = inputs.new_empty(kept + keep, columns, features, dtype=dtype)
    cells[0] = c
    of_output = repeated_product(weight, columns, steps)
    for step in range(steps):
        at = step if keep else 0
        gate = gates[at]
        torch.add(of_output(outputs[step]), inputs[step], out=gate)
        master, o, g, i, f = _split(gate, chunks)
        master.copy_(master.softmax(-1))
        o.sigmoid_()
        g.tanh_()
        gate[:, -2 * features :].sigmoid_()
        in_master, forget_master = _masters(master)
        overlap = in_master * forget_master
        forget = torch.addcmul(forget_master - overlap, f, overlap)
        admit = torch.addcmul(in_master - overlap, i, overlap)
        old, new = cells[at].view_as(g), cells[at + keep].view_as(g)
        torch.addcmul(forget.mul_(old), admit, g, out=new)
        torch.mul(o, new.tanh(), out=outputs[step + 1].view_as(o))
    return outputs, cells, gates


@recorded
def _backward(
    grad_outputs: Tensor | None,
    grad_cell: Tensor | None,
    outputs: Tensor,
    cells: Tensor,
    gates: Tensor,
    weight: Tensor,
    chunks: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the inputs, h, c and the weight."""
    fused = fused_cells("ordered_triton", cells, weight)
    to_gates = fused.backward if fused else _backward_to_gates
    dgates, dh, dc = to_gates(grad_outputs, grad_cell, cells, gates, weight, chunks)
    flat = dgates.flatten(0, 1).to(weight.dtype)
    dweight = linear(flat.t(), outputs[:-1].flatten(0, 1).to(weight.dtype).t())
    return dgates, dh, dc, dweight


def _backward_to_gates(
    grad_outputs: Tensor | None,
    grad_cell: Tensor | None,
    cells: Tensor,
    gates: Tensor,
    weight: Tensor,
    chunks: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of what the gates are computed from (time, columns, rows), of h and of c."""
    steps, columns, _ = gates.shape
    features = cells.size(-1)
    master, o, g, i, f = _split(gates, chunks)
    in_master, forget_master = _masters(master)
    overlap = in_master * forget_master
    old, bounded = cells[:-1].view_as(g), cells[1:].tanh().view_as(g)
    forget = torch.addcmul(forget_master - overlap, f, overlap).flatten(-2)
    admit = torch.addcmul(in_master - overlap, i, overlap)
    # By how much a change of the step's output (for o) or of its cell (for the others) changes what the gates
    # are computed from; then, in place, by how much the loss changes.
    local = torch.empty_like(gates)
    _, to_o, to_g, to_i, to_f = _split(local, chunks)
    torch.mul(bounded, o * (1 - o), out=to_o)
    torch.mul(admit, 1 - g * g, out=to_g)
    torch.mul(g * overlap, i * (1 - i), out=to_i)
    torch.mul(old * overlap, f * (1 - f), out=to_f)
    to_cell = (o * (1 - bounded * bounded)).flatten(-2)
    # The master gates act on all neurons of a chunk: ∂c/∂ĩ, negated as ĩ = 1 − cumsum, and ∂c/∂f̃.
    shared = old * (f - 1) + g * (i - 1)
    to_master = torch.stack((-g - shared * forget_master, old + shared * in_master), dim=-3)
    of_gates = repeated_product(weight.t(), columns, steps)
    dh, dc = torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
    if grad_cell is not None:
        dc += grad_cell
    for step in reversed(range(steps)):
        if grad_outputs is not None:
            dh += grad_outputs[step]
        dc.addcmul_(dh, to_cell[step])
        dgate = local[step]
        dgate[:, 2 * chunks : 2 * chunks + features] *= dh
        dgate[:, 2 * chunks + features :].unflatten(-1, (3, features)).mul_(dc.unsqueeze(1))
        # Through sum over the chunk, cumsum and softmax.
        dcumax = (to_master[step] * dc.view(columns, 1, chunks, -1)).sum(-1)
        dsoftmax = dcumax.sum(-1, keepdim=True) - dcumax.cumsum(-1) + dcumax
        p = master[step]
        weighted = p * dsoftmax
        dgate[:, : 2 * chunks] = (weighted - p * weighted.sum(-1, keepdim=True)).flatten(-2)
        dh = of_gates(dgate).to(dgate.dtype)
        dc *= forget[step]
    return local, dh, dc


def _split(gates: Tensor, chunks: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Views of `gates` (..., rows): the master gates (..., 2, chunks), and o, g, i, f, each (..., chunks, neurons)."""
    master = gates[..., : 2 * chunks].unflatten(-1, (2, chunks))
    o, g, i, f = gates[..., 2 * chunks :].unflatten(-1, (4, chunks, -1)).unbind(-3)
    return master, o, g, i, f


def _masters(softmax: Tensor) -> tuple[Tensor, Tensor]:
    """Master input and forget gate, each (..., chunks, 1), from their softmaxes (..., 2, chunks)."""
    cumax_in, cumax_forget = softmax.cumsum(-1).unsqueeze(-1).unbind(-3)
    return 1 - cumax_in, cumax_forget
