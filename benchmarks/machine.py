"""What was measured on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["machine", "versions"]


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """The processor, the GPU if it is one that was measured, and what of them was used."""
    found = {"device": device.type, "processor": _processor(), "system": platform.platform(), "threads": threads}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        precision = torch.get_float32_matmul_precision()
        found["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, matmul_precision={precision}"
    return found


def versions() -> dict[str, str]:
    """Of Python, torch, Lightning and this package."""
    packages = ("torch", "pytorch-lightning", "lightning-sparse-rnn")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()
