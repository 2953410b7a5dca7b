"""What was measured on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from lightning_sparse_rnn.utilities.processor import processor

__all__ = ["machine", "versions"]


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """The processor, the GPU if it is one that was measured, and what of them was used."""
    found = {"device": device.type, "processor": processor(), "system": platform.platform(), "threads": threads}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        precision = torch.get_float32_matmul_precision()
        found["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, matmul_precision={precision}"
    return found


def versions() -> dict[str, str]:
    """Of Python, torch, Lightning and this package."""
    packages = ("torch", "pytorch-lightning", "lightning-sparse-rnn")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
