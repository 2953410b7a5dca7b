"""Cells as one kernel each, by Triton, on a GPU where it works."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.utilities.triton import triton_works

__all__ = ["fused_cells", "launcher"]


def fused_cells(module: str, *tensors: Tensor) -> ModuleType | None:
    """The module of `lightning_sparse_rnn.models.kernels` whose kernels can take these tensors, or None.

    They are for a GPU, and compute in float32 what has that or lower precision.
    """
    if not tensors[0].is_cuda or any(tensor.dtype == torch.float64 for tensor in tensors):
        return None
    return _kernels(module) if _triton_works_on(tensors[0].device) else None


def launcher(kernel: Any, grid: tuple[int, ...], **options: Any) -> Callable[..., None]:
    """A function that launches a kernel of Triton's on `grid` with these options and what else it is given."""

    def launch(*args: Any, **more: Any) -> None:
        with torch.cuda.device_of(args[0]):  # Triton launches on the current device, wherever the arguments are
            # Said, because Triton 3.9 warns that its default is to change.
            kernel[grid](*args, **more, **options, enable_fp_fusion=True)

    return launch


def _kernels(module: str) -> ModuleType:
    return import_module(f"lightning_sparse_rnn.models.kernels.{module}")


@functools.cache
def _triton_works_on(device: torch.device) -> bool:
    def launch() -> None:
        x = torch.ones(1, 1, 2, device=device)
        _kernels("highway_triton").forward(x, x[0, :, :1], None, False, x[0].t())

    return triton_works(device, launch, "recurrent networks compute their cells in many kernels")
