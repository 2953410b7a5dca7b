"""What a machine computes on, by name."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from lightning_sparse_rnn.utilities.counting import counted

__all__ = ["computed_on", "processor"]


def processor() -> str:
    """Return the name of the processor, or its kind where the system does not tell more."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def computed_on(device: torch.device) -> str:
    """Return the name of a GPU, or that of the processor with the number of threads that torch uses.

    >>> computed_on(torch.device("cpu")).endswith(("thread", "threads"))
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} of {processor()}"
    return f"{processor()}, {counted(torch.get_num_threads(), 'thread')}"
