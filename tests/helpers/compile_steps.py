"""Compiles the step of SNTASGD as it is launched, for Ampere and Hopper GPUs, which need not be here."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from lightning_sparse_rnn.optim import steps_triton


class Absent:
    """Stands for the driver of a GPU."""

    def __init__(self, capability: int) -> None:
        self.get_current_device = lambda: capability
        self.get_current_stream = lambda device: 0
        self.get_current_target = lambda: GPUTarget("cuda", capability, 32)


def compile_only(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    compiled = kernel.warmup(*args, grid=grid, **options, num_warps=8, enable_fp_fusion=True)
    assert compiled.asm["cubin"]
    assert len(kernel.device_caches[driver.active.get_current_device()][0]) <= 24  # other numbers compile nothing anew


steps_triton._launch = compile_only
for capability in (80, 90):
    driver.set_active(Absent(capability))
    for dtype, masked, summed in product((torch.float32, torch.bfloat16, torch.float16), (True, False), (True, False)):
        weight = torch.ones(4096, dtype=dtype)
        mask, total = weight if masked else None, torch.zeros(4096) if summed else None
        for decay, move in [(0.9, -0.3), (1.0, -1), torch.rand(2)]:
            steps_triton.step(weight, weight, mask, total, decay, move)
    print(capability)
