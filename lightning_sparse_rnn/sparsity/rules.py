"""What rules say about themselves, and how one is found by its name or its import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["QUANTITIES", "chooses_own_count", "find_rule", "needed_by", "needs", "path_of"]

Rule = TypeVar("Rule", bound=Callable[..., Any])

#: What a rule may ask for besides weights: the dense gradients of the step the update stands at, their running mean
#: over all steps, and the sign each live weight was given when it was born (true: positive).
QUANTITIES = ("gradients", "momenta", "signs")


def needs(*quantities: str) -> Callable[[Rule], Rule]:
    """Mark a rule as one that looks at these of :data:`QUANTITIES`, so that they are there when it is called.

    Raises:
        ValueError: there is no such quantity.
    """
    unknown = set(quantities) - set(QUANTITIES)
    if unknown:
        raise ValueError(f"A rule can need {', '.join(QUANTITIES)}, got {', '.join(sorted(unknown))}.")

    def mark(rule: Rule) -> Rule:
        rule.needs = frozenset(quantities)  # type: ignore[attr-defined]
        return rule

    return mark


def needed_by(rule: Any) -> frozenset[str]:
    """Return what a rule was marked to need."""
    needed: frozenset[str] = getattr(rule, "needs", frozenset())
    return needed


def chooses_own_count(rule: Rule) -> Rule:
    """Mark a pruning rule as one that takes ``count`` for advice, and may mark more weights or fewer."""
    rule.chooses_own_count = True  # type: ignore[attr-defined]
    return rule


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
