"""What an optimizer remembers of single weights, and how it forgets those that died or have just been born."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["check_memory", "forget"]


@torch.no_grad()
def forget(optimizer: Optimizer, masks: Mapping[Tensor, Tensor], born: Mapping[Tensor, Tensor]) -> None:
    """Zero what an optimizer remembers, element by element, of weights that are not live or have just been born.

    That is every state in its parameter's shape, or with further dimensions before it: numbers, truth values, and
    codes of eight bits whose zero is known (``state1`` with its table ``qmap1``, as bitsandbytes has them, and tensors
    that decode and encode themselves, as torchao's). Sums over rows and columns are left as they are, and so are the
    square matrices that Shampoo and its kind keep of rows and of columns, which an n × n weight has in its own shape.

    Args:
        optimizer: one that knows nothing of masks.
        masks: for each sparse parameter, 1 where live and 0 elsewhere.
        born: for each parameter, what was regrown; one that is not here has no weights that were.

    Raises:
        ValueError: a state's codes have no zero that is known.
    """
    for parameter, state, key, value in _of_single_weights(optimizer, masks):
        mask = masks[parameter]
        if type(value) is not Tensor and not isinstance(value, torch.nn.Parameter):
            plain = value.dequantize().mul_(mask)
            value.copy_(plain.masked_fill_(born[parameter], 0) if parameter in born else plain)
        elif value.is_floating_point() or value.is_complex():
            value.mul_(mask)
            if parameter in born:
                value.masked_fill_(born[parameter], 0)
        else:
            gone = mask == 0
            if parameter in born:
                gone |= born[parameter]
            value.masked_fill_(gone, _zero(optimizer, state, key, value))


def check_memory(optimizer: Optimizer, masks: Mapping[Tensor, Tensor]) -> None:
    """Raise a ``ValueError`` if :func:`forget` could not do its work on what this optimizer remembers now."""
    for _, state, key, value in _of_single_weights(optimizer, masks):
        _zero(optimizer, state, key, value)


def _of_single_weights(
    optimizer: Optimizer, masks: Mapping[Tensor, Tensor]
) -> Iterator[tuple[Tensor, Mapping[str, Any], str, Tensor]]:
    """Return what is remembered of single weights of sparse parameters: each with its parameter, state and name."""
    factors = _factors(optimizer)
    for parameter, state in optimizer.state.items():
        if parameter in masks:
            for key, value in state.items():
                if key not in factors and _is_per_weight(value, parameter):
                    yield parameter, state, key, value


def _factors(optimizer: Optimizer) -> set[str]:
    """Return the names of states of whole rows or columns: square ones of a tensor that is not, or so called."""
    return {
        key
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if "precond" in str(key) or (isinstance(value, Tensor) and _is_square_beside(value, parameter))
    }


def _is_square_beside(value: Tensor, parameter: Tensor) -> bool:
    return (
        parameter.dim() > 1
        and value.dim() == 2
        and value.shape[0] == value.shape[1]
        and value.shape != parameter.shape
        and value.shape[0] in parameter.shape
    )


def _is_per_weight(value: Any, parameter: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dim() >= parameter.dim()
        and value.shape[value.dim() - parameter.dim() :] == parameter.shape
    )


def _zero(optimizer: Optimizer, state: Mapping[str, Any], key: str, value: Tensor) -> int:
    """Return what stands for zero in a state."""
    if type(value) is not Tensor and not isinstance(value, torch.nn.Parameter):
        if callable(getattr(type(value), "dequantize", None)) and type(value).dequantize is not Tensor.dequantize:
            return 0
    elif value.dtype not in (torch.uint8, torch.int8):
        return 0
    elif key.startswith("state"):
        table = state.get(key.replace("state", "qmap"))
        if isinstance(table, Tensor) and bool((table == 0).any()):
            return int((table == 0).nonzero()[0])
    kind = type(value).__name__ if type(value) is not Tensor else str(value.dtype).removeprefix("torch.")
    raise ValueError(
        f"{type(optimizer).__name__} keeps {key!r} of each weight as {kind}, in which it is not known what stands for "
        "zero: it could not forget weights that are pruned. Take an optimizer whose state is numbers, such as "
        "torch.optim's, or a topology that stays as it is (`update_every_n_epochs=None`)."
    )
