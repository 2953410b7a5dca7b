"""How often a program waits for its device, and how much memory of it it needs."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch

from benchmarks.setting import Setting

__all__ = ["PeakMemory", "Waits"]

# Calls whose result the program has to know before it goes on.
_WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")


class Waits(AbstractContextManager["Waits"]):
    """Counts how often what is inside waits for the device.

    On a GPU by what torch says of it; on a CPU, where nothing waits, by the calls that would.
    """

    def __init__(self, setting: Setting) -> None:
        self.count = 0
        self._setting = setting
        self._stack = ExitStack()

    def __enter__(self) -> Waits:
        if self._setting.device.type == "cuda":
            self._said = self._stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            self._stack.callback(torch.cuda.set_sync_debug_mode, torch.cuda.get_sync_debug_mode())
            torch.cuda.set_sync_debug_mode("warn")
        else:
            activities = [torch.profiler.ProfilerActivity.CPU]
            self._profile = self._stack.enter_context(torch.profiler.profile(activities=activities))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        if self._setting.device.type == "cuda":
            self.count = sum("synchronizing CUDA operation" in str(warning.message) for warning in self._said)
        else:
            self.count = sum(event.count for event in self._profile.key_averages() if event.key in _WAITING)


class PeakMemory(AbstractContextManager["PeakMemory"]):
    """Measures by how much what is inside passes the GPU memory that was in use before it; nothing on a CPU."""

    def __init__(self, setting: Setting) -> None:
        self.bytes_above: int | None = None
        self._device = setting.device

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._device.type == "cuda":
            self.bytes_above = torch.cuda.max_memory_allocated(self._device) - self._before
