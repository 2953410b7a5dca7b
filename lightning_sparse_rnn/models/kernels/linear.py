"""Products with weights, as fast as a CPU can make them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

__all__ = ["Linear", "by_onednn", "linear", "made_into_a_graph", "repeated_product"]

# From so many products on, laying a weight out for them pays.
_WORTH_PACKING = 8


class Linear(nn.Linear):
    """`torch.nn.Linear` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, on a CPU by oneDNN.

    torch itself takes MKL, which is as fast on Intel's processors and half as fast on AMD's.
    """
    if torch.is_autocast_enabled("cpu") or not (by_onednn(x, weight) and _laid_out(x, weight, bias)):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        result: Tensor = _Linear.apply(x, weight, bias)
        return result
    return _onednn(x, weight, bias)


def _laid_out(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether all shapes are as oneDNN takes them, which reads a bias as if it were contiguous."""
    if weight.dim() != 2 or x.dim() == 0 or x.size(-1) != weight.size(1):
        return False
    return bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype and bias.is_contiguous())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        flat = grad.reshape(-1, grad.size(-1))
        return (
            linear(grad, weight.t()) if to_x else None,
            linear(flat.t(), x.reshape(-1, x.size(-1)).t()) if to_weight else None,
            flat.sum(0) if to_bias else None,
        )


def repeated_product(weight: Tensor, columns: int, times: int) -> Callable[[Tensor], Tensor]:
    """A function from x (columns, features) to x·weightᵀ, made to be called `times` times. Not differentiable.

    A product of few rows with a large weight is mostly the work of rearranging the weight for it. On a CPU this
    does so once, in oneDNN's own layout, which makes the products of a long sequence half as fast again.

    Args:
        weight: (rows, features). Where it is of lower precision than x, the product is too.
    """
    if times >= _WORTH_PACKING and by_onednn(weight):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, columns)
        return lambda x: _onednn(x, packed, None)
    return lambda x: torch.mm(x.to(weight.dtype), weight.t())


_HERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def made_into_a_graph() -> bool:
    """Whether torch compiles, exports or traces what runs: what it makes is to have torch's own operators."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def by_onednn(*tensors: Tensor) -> bool:
    # What transforms functions, such as torch.func.vmap, knows torch's own operators alone.
    if made_into_a_graph() or torch._C._are_functorch_transforms_active():
        return False
    return _HERE and all(tensor.is_cpu and tensor.dtype == torch.float32 and tensor.numel() > 0 for tensor in tensors)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


if _HERE and torch.ops.mkldnn._linear_pointwise not in flop_registry:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x_shape: Sequence[int], weight_shape: Sequence[int], *others: Any, **more: Any) -> int:
        """What torch's counter is to count, which knows torch's own operators alone."""
        return 2 * math.prod(x_shape) * weight_shape[0]
