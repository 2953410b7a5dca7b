"""A checkpoint as it is at one moment, in the CPU's memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

__all__ = ["snapshot"]


def snapshot(value: Any) -> Any:
    """Return a copy of nested containers and tensors, with all tensors on the CPU.

    Nothing that happens to ``value`` afterwards changes the copy. Tensors that share memory share that of the copy, so
    that files hold it once.
    """
    return _copied(value, {})


def _copied(value: Any, memories: dict[int, torch.UntypedStorage]) -> Any:
    if type(value) is Tensor and value.layout == torch.strided and not value.requires_grad and not value.is_quantized:
        return _on_cpu(value, memories)
    if isinstance(value, dict):
        other = copy.copy(value)  # with its attributes: a state_dict has its version in one
        for key, part in value.items():
            other[key] = _copied(part, memories)
        return other
    if type(value) in (list, tuple):
        return type(value)(_copied(part, memories) for part in value)
    return copy.deepcopy(value)


def _on_cpu(tensor: Tensor, memories: dict[int, torch.UntypedStorage]) -> Tensor:
    memory = tensor.untyped_storage()
    key = memory._cdata
    if key not in memories:
        memories[key] = memory.clone() if memory.device.type == "cpu" else memory.cpu()
    empty = torch.empty(0, dtype=tensor.dtype)
    return empty.set_(memories[key], tensor.storage_offset(), tensor.shape, tensor.stride())
