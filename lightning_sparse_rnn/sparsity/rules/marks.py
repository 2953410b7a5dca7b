"""What rules say about themselves, and how one is found by its name or its import path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["QUANTITIES", "chooses_own_count", "needed_by", "needs"]

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
