"""Containers in containers, as checkpoints are made of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

__all__ = ["is_container", "mapped"]


def is_container(value: Any) -> bool:
    """Whether :func:`mapped` looks into ``value``."""
    return isinstance(value, dict) or type(value) in (list, tuple) or _is_named_tuple(value)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return ``value`` with what is in its dicts, lists and tuples changed.

    Args:
        change: returns what is to stand in the place of what it is called with, or ``None`` to leave that as it is.
    """
    changed = change(value)
    if changed is not None:
        return changed
    if isinstance(value, dict):
        result = copy.copy(value)  # of the same type, and with the attribute that a state_dict has
        for name, each in value.items():
            result[name] = mapped(each, change)
        return result
    if type(value) in (list, tuple):
        return type(value)(mapped(each, change) for each in value)
    if _is_named_tuple(value):
        return value._make(mapped(each, change) for each in value)
    return value


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_make")
