"""A network's memory between batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["State", "map_state", "state_batch_size"]


# A network's memory between batches: tensors of shape (..., columns, features) in nested tuples or lists.
State = Any


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """Apply `function` to every tensor of `state`; None stays None."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return function(state)
    return type(state)(map_state(function, part) for part in state)


def state_batch_size(state: State) -> int:
    """Number of columns that `state` was made for."""
    while not isinstance(state, Tensor):
        state = state[0]
    return state.size(-2)
