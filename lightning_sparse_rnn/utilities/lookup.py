"""How a rule is found by its name or its import path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

__all__ = ["find_rule", "path_of"]


def find_rule(option: str, given: Any, known: Mapping[str, Any]) -> Any:
    """Return the rule ``given``: one of those ``known`` by name, an import path as ``"package.module.function"``, or
    the rule itself.

    Raises:
        ValueError: there is none of that name, or it cannot be imported; the message lists those there are.
    """
    if not isinstance(given, str):
        if callable(given):
            return given
        raise ValueError(f"Expected `{option}` to be a name, an import path or a function, got {given!r}.")
    if given in known:
        return known[given]
    names = ", ".join(known)
    module, _, name = given.rpartition(".")
    if not module:
        raise ValueError(f"Unknown `{option}` {given!r}. Known: {names}; or give your own rule's import path.")
    try:
        rule = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Cannot import `{option}` {given!r}: {error}. Known without a path: {names}.") from error
    if not callable(rule):
        raise ValueError(f"Expected `{option}` {given!r} to be a function, got {rule!r}.")
    return rule


def path_of(given: Any) -> str:
    """Return a rule's name or import path, to be written down."""
    return f"{given.__module__}.{given.__qualname__}" if hasattr(given, "__qualname__") else str(given)
