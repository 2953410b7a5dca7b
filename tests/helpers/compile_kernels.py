"""Compiles Triton's kernels as the recurrences launch them, for Ampere and Hopper GPUs, which need not be here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from lightning_sparse_rnn.models.kernels import gru_triton, highway_triton, lstm_triton, ordered_triton


class Absent:
    """Stands for the driver of a GPU."""

    def __init__(self, capability: int) -> None:
        self.get_current_device = lambda: capability
        self.get_current_stream = lambda device: 0
        self.get_current_target = lambda: GPUTarget("cuda", capability, 32)


def compiler(kernel: Any, grid: tuple[int, ...], **options: Any) -> Callable[..., None]:
    """What takes the place of `triton_launch.launcher`."""

    def launch(*args: Any, **more: Any) -> None:
        compiled = kernel.warmup(*args, grid=grid, **more, **options, enable_fp_fusion=True)
        assert compiled.asm["cubin"]
        names.add(f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}")

    return launch


def highway(dtype: torch.dtype, keep: bool, masked: bool, gates: int) -> None:
    weights = [torch.randn(gates * 8, 8).to(dtype) for _ in range(2)]
    mask = torch.ones(3, 8) if masked else None
    inputs, state = torch.randn(2, 3, gates * 8).to(dtype), torch.randn(3, 8)
    found = highway_triton.forward(inputs, state, mask, keep, *weights, torch.randn(gates * 8))
    if keep:
        highway_triton.backward(torch.randn(2, 3, 8), *found, mask, *weights)


def ordered(dtype: torch.dtype, keep: bool, chunks: int, neurons: int) -> None:
    features = chunks * neurons
    weight = torch.randn(2 * chunks + 4 * features, features).to(dtype)
    inputs, h, c = torch.randn(2, 3, len(weight)).to(dtype), *torch.randn(2, 3, features)
    outputs, cells, gates = ordered_triton.forward(inputs, h, c, weight, chunks, keep)
    if keep:
        ordered_triton.backward(outputs[1:], None, cells, gates, weight, chunks)
        ordered_triton.backward(None, c, cells, gates, weight, chunks)


def lstm(dtype: torch.dtype, keep: bool) -> None:
    weight = torch.randn(32, 8).to(dtype)
    inputs, h, c = torch.randn(2, 3, 32), *torch.randn(2, 3, 8)
    outputs, cells, gates = lstm_triton.forward(inputs, h, c, weight, keep)
    if keep:
        lstm_triton.backward(outputs[1:], c, cells, gates, weight)
        lstm_triton.backward(None, c, cells, gates, weight)


def gru(dtype: torch.dtype, keep: bool) -> None:
    weight = torch.randn(24, 8).to(dtype)
    outputs, gates = gru_triton.forward(torch.randn(2, 3, 24), torch.randn(3, 8), weight, torch.randn(24), keep)
    if keep:
        gru_triton.backward(outputs[1:], outputs, gates, weight)


names: set[str] = set()
for module in (highway_triton, ordered_triton, lstm_triton, gru_triton):
    module.launcher = compiler
for capability in (80, 90):
    driver.set_active(Absent(capability))
    for dtype, keep in product((torch.float32, torch.bfloat16), (True, False)):
        for masked, gates in product((True, False), (2, 3)):
            highway(dtype, keep, masked, gates)
        for chunks, neurons in [(4, 2), (1, 8), (8, 1), (1, 1)]:
            ordered(dtype, keep, chunks, neurons)
    for dtype, keep in product((torch.float32, torch.bfloat16, torch.float16), (True, False)):
        lstm(dtype, keep)
        gru(dtype, keep)
print(*sorted(names))
