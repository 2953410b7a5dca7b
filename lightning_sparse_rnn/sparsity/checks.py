"""Checks of options that several parts of the method share."""

from __future__ import annotations

from numbers import Real

__all__ = ["check_fraction"]


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
