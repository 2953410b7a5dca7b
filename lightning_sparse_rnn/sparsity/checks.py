"""Checks of options that several parts of the method share."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["check_fraction", "check_known"]


def check_fraction(name: str, value: float) -> float:
    """Return ``value`` as a float in [0, 1), or raise a ``ValueError`` that says what to pass instead."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"Expected `{name}` to be a number in [0, 1), got {value!r} ({type(value).__name__}).")
    if not 0.0 <= value < 1.0:
        hint = f" Did you mean {value / 100:g}?" if 1.0 < value < 100.0 else ""
        raise ValueError(f"Expected `{name}` in [0, 1), got {value}.{hint}")
    return float(value)


def check_known(option: str, name: str, known: Collection[str]) -> None:
    """Raise a ``ValueError`` that lists what there is, unless ``name`` is among it."""
    if name not in known:
        raise ValueError(f"Unknown `{option}` {name!r}. Known: {', '.join(known)}.")
