"""Checks of the numbers that options are given as."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

__all__ = ["check_dropouts", "check_flags", "check_fraction", "check_whole", "is_whole"]


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether ``value`` is a whole number of at least ``least``: NumPy's are, truth values are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_whole(least: int = 1, **values: Any) -> None:
    """Raise a ``ValueError`` unless every one of ``values`` is a whole number of at least ``least``."""
    for name, value in values.items():
        if not is_whole(value, least):
            raise ValueError(f"Expected `{name}` to be a whole number of at least {least}, got {value!r}.")


def check_flags(**flags: Any) -> None:
    """Raise a ``ValueError`` unless every one of ``flags`` is true or false: text as "no" would count as true."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"Expected `{name}` to be true or false, got {flag!r}.")


def check_dropouts(**dropouts: float) -> None:
    """Raise what :func:`check_fraction` raises unless every one of ``dropouts`` is a probability below 1."""
    for name, dropout in dropouts.items():
        check_fraction(name, dropout)


def check_fraction(name: str, value: float) -> float:
    """Return ``value`` as a Python float in [0, 1).

    Raises:
        TypeError: it is no real number. NumPy's numbers are; truth values and tensors are not.
        ValueError: it is out of range; the message says what to pass instead.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Expected `{name}` to be a number in [0, 1), got {value!r} ({type(value).__name__}).")
    if not 0.0 <= value < 1.0:
        hint = f" Did you mean {value / 100:g}?" if 1.0 < value < 100.0 else ""
        raise ValueError(f"Expected `{name}` in [0, 1), got {value}.{hint}")
    return float(value)
