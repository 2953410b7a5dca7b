"""Prune rates and sparsities over time. A schedule takes the share that is done, and the first and last value."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "constant", "cosine", "cubic", "linear"]


def cosine(progress: float, first: float, last: float) -> float:
    """Fall along half a cosine: ``last + (first − last)(1 + cos(π·progress))/2`` (the paper's choice)."""
    return last + (first - last) * (1.0 + math.cos(math.pi * progress)) / 2.0


def linear(progress: float, first: float, last: float) -> float:
    """Fall in a straight line from ``first`` to ``last``."""
    return first + (last - first) * progress


def cubic(progress: float, first: float, last: float) -> float:
    """Go fast at first, then ever slower: ``last + (first − last)(1 − progress)³`` (Zhu & Gupta 2017, eq. 1)."""
    return last + (first - last) * (1.0 - progress) ** 3


def constant(progress: float, first: float, last: float) -> float:
    """Stay at ``first``."""
    return first


SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "cosine": cosine,
    "linear": linear,
    "cubic": cubic,
    "constant": constant,
}
