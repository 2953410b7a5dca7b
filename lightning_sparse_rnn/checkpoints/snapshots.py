"""A checkpoint as it is at one moment, in the CPU's memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.checkpoints.nested import is_container, mapped

__all__ = ["snapshot"]


def snapshot(value: Any) -> Any:
    """Return a copy of nested containers and tensors, with all tensors on the CPU.

    Nothing that happens to ``value`` afterwards changes the copy. Tensors that share memory share that of the copy, so
    that files hold it once. A tensor of a graph is copied without it.
    """
    memories: dict[int, torch.UntypedStorage] = {}

    def copied(part: Any) -> Any:
        if type(part) in (Tensor, nn.Parameter) and part.layout == torch.strided and not part.is_quantized:
            plain = _on_cpu(part.detach(), memories)
            return nn.Parameter(plain, part.requires_grad) if type(part) is nn.Parameter else plain
        return None if is_container(part) else copy.deepcopy(part)

    return mapped(value, copied)


def _on_cpu(tensor: Tensor, memories: dict[int, torch.UntypedStorage]) -> Tensor:
    memory = tensor.untyped_storage()
    key = memory._cdata
    if key not in memories:
        memories[key] = memory.clone() if memory.device.type == "cpu" else memory.cpu()
    empty = torch.empty(0, dtype=tensor.dtype)
    return empty.set_(memories[key], tensor.storage_offset(), tensor.shape, tensor.stride())
