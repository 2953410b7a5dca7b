"""Checks of the numbers a network is made from."""

from __future__ import annotations

__all__ = ["check_dropouts", "check_sizes"]


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless every one of `sizes` is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"Expected `{name}` of at least 1, got {size}.")


def check_dropouts(**dropouts: float) -> None:
    """Raise ValueError unless every one of `dropouts` is a probability below 1."""
    for name, dropout in dropouts.items():
        if not 0 <= dropout < 1:
            hint = f" Did you mean {dropout / 100:g}?" if 1 < dropout < 100 else ""
            raise ValueError(f"Expected `{name}` in [0, 1), got {dropout}.{hint}")
