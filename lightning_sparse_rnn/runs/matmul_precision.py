"""How products of float32 numbers are rounded."""

from __future__ import annotations

import torch

__all__ = ["set_matmul_precision"]

_PRECISIONS = ("highest", "high", "medium")


def set_matmul_precision(precision: str) -> None:
    """Let torch round the factors of float32 products in this process, sums staying float32.

    Args:
        precision: ``"highest"``: not at all, in cuDNN's recurrent layers neither, for which TF32 is torch's default.
            ``"high"``: to TF32, on GPUs that have it. ``"medium"``: to bfloat16, on CPUs that have it too.

    Raises:
        ValueError: it is none of these, of which torch itself only warns.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"Expected `matmul_precision` to be one of {', '.join(_PRECISIONS)}, got {precision!r}.")
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
