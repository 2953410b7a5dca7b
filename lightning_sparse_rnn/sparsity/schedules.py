"""Prune rates over time. A schedule takes the share of training that is done and the first and last rate."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "constant", "cosine", "linear"]


def cosine(progress: float, first: float, last: float) -> float:
    """Fall along half a cosine: ``last + (first − last)(1 + cos(π·progress))/2`` (the paper's choice)."""
    return last + (first - last) * (1.0 + math.cos(math.pi * progress)) / 2.0


def linear(progress: float, first: float, last: float) -> float:
    """Fall in a straight line from ``first`` to ``last``."""
    return first + (last - first) * progress


def constant(progress: float, first: float, last: float) -> float:
    """Stay at ``first``."""
    return first


SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}
