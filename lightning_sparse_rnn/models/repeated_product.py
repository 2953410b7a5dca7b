"""One weight times many small batches, as the steps of a recurrent layer need it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["repeated_product"]

# From so many products on, laying a weight out for them pays.
_WORTH_PACKING = 8


def repeated_product(weight: Tensor, columns: int, times: int) -> Callable[[Tensor], Tensor]:
    """A function from x (columns, features) to x·weightᵀ, made to be called `times` times. Not differentiable.

    A product of few rows with a large weight is mostly the work of rearranging the weight for it. On a CPU this
    does so once, in oneDNN's own layout, which makes the products of a long sequence half as fast again.

    Args:
        weight: (rows, features). Where it is of lower precision than x, the product is too.
    """
    worth = times >= _WORTH_PACKING and weight.is_cpu and weight.dtype == torch.float32
    if worth and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, columns)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return lambda x: torch.mm(x.to(weight.dtype), weight.t())
