"""Epochs that are given as shares of a run."""

from __future__ import annotations

__all__ = ["epoch_at"]


def epoch_at(share: float, epochs: int) -> int:
    """Return the epoch, counted from 0, at which a share in (0, 1) of so many epochs is done: never the first.

    >>> epoch_at(0.7, 40), epoch_at(0.05, 6)
    (28, 1)
    """
    return max(1, round(share * epochs))
