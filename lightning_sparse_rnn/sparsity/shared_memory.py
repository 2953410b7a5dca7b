"""Parameters that share memory without being one parameter."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["check_memory"]


def check_memory(module: nn.Module, chosen: Mapping[str, nn.Parameter]) -> None:
    """Raise a ``ValueError`` if a weight of the ``chosen`` parameters is one of another parameter as well.

    Each would be masked by its own mask and stepped by its own state, and what is zero in one would not stay so.
    Parameters side by side in one buffer, as cuDNN wants them, share nothing.
    """
    by_storage: dict[tuple[torch.device, int], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
        if plain and parameter.layout == torch.strided and parameter.device.type != "meta" and parameter.numel():
            storage = parameter.device, parameter.untyped_storage().data_ptr()
            by_storage.setdefault(storage, []).append((name, parameter))
    wanted = set(chosen.values())
    for users in by_storage.values():
        for i, (name, parameter) in enumerate(users):
            for other_name, other in users[i + 1 :]:
                if (parameter in wanted or other in wanted) and _overlap(parameter, other):
                    raise ValueError(
                        f"{name} and {other_name} share their memory without being one parameter, so that each would "
                        f"undo the other's zeros. Make them one, as in `module.{other_name} = module.{name}`, or leave "
                        "both dense with `exclude`."
                    )


def _overlap(one: Tensor, other: Tensor) -> bool:
    (first, last), (start, stop) = _span(one), _span(other)
    if last < start or stop < first:
        return False
    if one.element_size() != other.element_size():
        return True
    # Columns of one matrix lie between each other: only marking them shows whether they meet.
    size, low = one.element_size(), min(first, start)
    marks = torch.zeros((max(last, stop) - low) // size + 1, dtype=torch.bool)
    marks.as_strided(one.shape, one.stride(), (first - low) // size).fill_(True)
    return bool(marks.as_strided(other.shape, other.stride(), (start - low) // size).any())


def _span(tensor: Tensor) -> tuple[int, int]:
    """The first and the last byte at which an element of a tensor begins."""
    first = int(tensor.storage_offset()) * tensor.element_size()
    steps = sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + steps * tensor.element_size()
