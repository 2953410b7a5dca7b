"""The recurrence of a highway network, with a backward pass of its own.

What autograd would do for every time step and depth, one small product for a weight's gradient, is one large
product per depth here: the gates' gradients are kept until the last step is done.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sparse_rnn.models.kernels.cuda_graphs import recorded
from lightning_sparse_rnn.models.kernels.linear import linear, repeated_product
from lightning_sparse_rnn.models.kernels.triton_launch import fused_cells

__all__ = ["highway_recurrence"]


@torch.compiler.disable
def highway_recurrence(
    inputs: Tensor, state: Tensor, weights: list[Tensor], biases: list[Tensor], mask: Tensor | None
) -> Tensor:
    """States after every time step of the highway layers (Zilly et al. 2017, equations 6 to 9).

    With s the state, at each depth d of a time step:

        (h, t[, c]) = (tanh, σ[, σ])(weights[d]·(mask ⊙ s) + biases[d]),  plus inputs[time] at d = 0
        s ← h ⊙ t + s ⊙ c,  where c = 1 − t if the gates are coupled

    Args:
        inputs: the input's share of the first depth's gates, its bias included, (time, columns, gates·features).
        state: the state before the first step, (columns, features).
        weights: one for each depth, (gates·features, features), gates in the order hidden, transform[, carry].
        biases: one for each depth but the first, (gates·features,).
        mask: what the state is multiplied by on its way to the gates, (columns, features), or None for ones. No
            gradient is computed for it.

    Returns:
        (time, columns, features). Gates and weights may be of lower precision than the state, which is float32 at
        least.
    """
    keep = torch.is_grad_enabled()
    return _HighwayRecurrence.apply(inputs, state, mask, keep, len(weights), *weights, *biases)


class _HighwayRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, state: Tensor, mask: Tensor | None, keep: bool, depth: int, *parameters: Tensor
    ) -> Tensor:
        weights, biases = parameters[:depth], parameters[depth:]
        chain, deeper, gates = _forward(inputs, state, mask, keep, *weights, *biases)
        ctx.save_for_backward(chain, deeper, gates, mask, *weights)
        ctx.input_dtypes = inputs.dtype, state.dtype
        return chain[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dgates, dstate, *dweights_dbiases = _backward(grad, *ctx.saved_tensors)
        input_dtype, state_dtype = ctx.input_dtypes
        return dgates.to(input_dtype), dstate.to(state_dtype), None, None, None, *dweights_dbiases


@recorded
def _forward(
    inputs: Tensor, state: Tensor, mask: Tensor | None, keep: bool, *parameters: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states between steps (time + 1, columns, features), those within, (depth − 1, time, columns,
    features), and the gates, (depth, time, columns, gates·features); of those one time at most unless `keep`."""
    if fused := fused_cells("highway_triton", inputs, state, *parameters):
        chain, deeper, gates = fused.forward(inputs, state, mask, keep, *parameters)
        return chain, deeper, gates
    depth = len(parameters) // 2 + 1
    weights, biases = parameters[:depth], parameters[depth:]
    (steps, columns, rows), features = inputs.shape, state.size(-1)
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    chain = inputs.new_empty(steps + 1, columns, features, dtype=dtype)
    chain[0] = state
    # A later depth's states and all gates are kept for the backward pass, or written over where there is none.
    kept = steps if keep else 1
    gates = inputs.new_empty(depth, kept, columns, rows, dtype=dtype)
    deeper = inputs.new_empty(depth - 1, kept, columns, features, dtype=dtype)
    products = [repeated_product(weight, columns, steps) for weight in weights]
    # All views are made at once: one by one they would take as long as the arithmetic of small layers.
    between, within = chain.unbind(), [states.unbind() for states in deeper]
    of_gates = [_views(gate, features) for gate in gates]
    for step, addend in enumerate(inputs.unbind()):
        at = step if keep else 0
        entering = [between[step], *(states[at] for states in within), between[step + 1]]
        for d, (of_state, bias) in enumerate(zip(products, (addend, *biases), strict=True)):
            s, out = entering[d], entering[d + 1]
            gate, sigmoids, h, t, *carry = of_gates[d][at]
            torch.add(of_state(s if mask is None else s * mask), bias, out=gate)
            h.tanh_()
            sigmoids.sigmoid_()
            if carry:
                torch.addcmul(h * t, s, carry[0], out=out)
            else:
                torch.lerp(s, h, t, out=out)
    return chain, deeper, gates


def _views(gate: Tensor, features: int) -> list[tuple[Tensor, ...]]:
    """For each time of `gate` (time, columns, gates·features): all of it, its sigmoids, and gate by gate."""
    parts = [gate, gate[..., features:], *gate.split(features, dim=-1)]
    return list(zip(*(part.unbind() for part in parts), strict=True))


@recorded
def _backward(
    grad: Tensor, chain: Tensor, deeper: Tensor, gates: Tensor, mask: Tensor | None, *weights: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of the inputs, the state, all weights and the biases."""
    fused = fused_cells("highway_triton", chain, *weights)
    to_gates = fused.backward if fused else _backward_to_gates
    dgates, dstate = to_gates(grad, chain, deeper, gates, mask, *weights)
    dweights = []
    for weight, dgate, s in zip(weights, dgates, (chain[:-1], *deeper), strict=True):
        seen = s if mask is None else s * mask
        flat = dgate.flatten(0, 1).to(weight.dtype)
        dweights.append(linear(flat.t(), seen.flatten(0, 1).to(weight.dtype).t()))
    return dgates[0], dstate, *dweights, *(dgate.sum((0, 1)) for dgate in dgates[1:])


def _backward_to_gates(
    grad: Tensor, chain: Tensor, deeper: Tensor, gates: Tensor, mask: Tensor | None, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of what the gates are computed from (depth, time, columns, rows), and of the state."""
    depth, steps, columns, _ = gates.shape
    features = chain.size(-1)
    entering = [chain[:-1], *deeper]
    # By how much a change of the state leaving a depth changes its gates' inputs; then, in place, by how much
    # the loss changes.
    local = torch.empty_like(gates)
    carries = []
    for d, s in enumerate(entering):
        h, t, *carry = gates[d].split(features, dim=-1)
        to_h, to_t, *to_carry = local[d].split(features, dim=-1)
        torch.mul(t, 1 - h * h, out=to_h)
        if carry:
            torch.mul(t * (1 - t), h, out=to_t)
            torch.mul(carry[0] * (1 - carry[0]), s, out=to_carry[0])
            carries.append(carry[0].unbind())
        else:
            torch.mul(t * (1 - t), h - s, out=to_t)
            carries.append((1 - t).unbind())
    products = [repeated_product(weight.t(), columns, steps) for weight in weights]
    ds = torch.zeros_like(chain[0])
    by_gate = ds.unsqueeze(1)
    dgates = [list(zip(each.unbind(), each.unflatten(-1, (-1, features)).unbind(), strict=True)) for each in local]
    for step in reversed(range(steps)):
        ds += grad[step]
        for d in reversed(range(depth)):
            dgate, dgate_by_gate = dgates[d][step]
            dgate_by_gate.mul_(by_gate)
            back = products[d](dgate)
            ds *= carries[d][step]
            if mask is None:
                ds += back
            else:
                ds.addcmul_(back, mask)
    return local, ds
