"""Checks of the numbers that networks and texts are made from."""

from __future__ import annotations

from numbers import Integral
from typing import Any

__all__ = ["check_dropouts", "check_whole"]


def check_whole(least: int = 1, **values: Any) -> None:
    """Raise ValueError unless every one of `values` is a whole number of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"Expected `{name}` to be a whole number of at least {least}, got {value!r}.")


def check_dropouts(**dropouts: float) -> None:
    """Raise ValueError unless every one of `dropouts` is a probability below 1."""
    for name, dropout in dropouts.items():
        if not 0 <= dropout < 1:
            hint = f" Did you mean {dropout / 100:g}?" if 1 < dropout < 100 else ""
            raise ValueError(f"Expected `{name}` in [0, 1), got {dropout}.{hint}")
