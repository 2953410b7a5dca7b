"""Products of 16-bit factors in recurrences that are otherwise of float32."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse_rnn.models.kernels.cuda_graphs import float32_precision

__all__ = ["factor_dtype", "product", "range_scale"]

# Factors of as many bits as torch would round float32 to: float16 has TF32's.
_ROUNDED_TO = {"high": torch.float16, "tf32": torch.float16, "medium": torch.bfloat16, "bf16": torch.bfloat16}
# From this release on torch gives out the sums of such products as they were added up.
_SUMS_IN_FLOAT32 = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
# The largest gradient that comes in is brought to about 2 to this power, 12 doublings below float16's largest number.
_LARGEST = 4


def factor_dtype(inputs: Tensor) -> torch.dtype:
    """The type of a recurrent product's factors: that of the input's product, or what `matmul_precision` allows.

    With "highest" it is float32; with "high", for which a GPU rounds factors to TF32, float16, which has as many bits
    and half the bytes; with "medium" bfloat16.
    """
    if inputs.dtype != torch.float32:
        return inputs.dtype
    return _ROUNDED_TO.get(float32_precision(), torch.float32)


def product(one: Tensor, other: Tensor) -> Tensor:
    """``one @ other`` of two matrices of one type; of 16-bit ones in float32 where torch can give that out."""
    if one.dtype == torch.float32:
        return torch.mm(one, other)
    if not one.is_cuda:
        return torch.mm(one.float(), other.float())
    return torch.mm(one, other, out_dtype=torch.float32) if _SUMS_IN_FLOAT32 else torch.mm(one, other)


def range_scale(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A power of two that brings ``gradient`` to where float16 is precise, and one over it; each of one element.

    A mean over hundreds of tokens has gradients so small that float16 would lose them.
    """
    largest = gradient.abs().amax().float().clamp(min=2.0**-100)
    scale = torch.exp2(_LARGEST - largest.log2().ceil()).reshape(1)
    return scale, 1 / scale
