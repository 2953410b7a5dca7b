"""Sharing a whole number of live weights exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["apportion"]


def apportion(total: int, shares: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Divide ``total`` in proportion to ``shares``, none above its limit, so that the sum is exactly ``total``.

    What a limit cuts off goes to the others in their proportion. Fractions are rounded by largest remainder; of equal
    ones the earlier is rounded up. If every positive share is at its limit, the rest is divided among
    the others in proportion to their limits.

    Args:
        total: at most the sum of the limits.
        shares: numbers of at least 0.
        limits: whole numbers of at least 0.
    """
    shares = [float(share) if limit else 0.0 for share, limit in zip(shares, limits, strict=True)]
    full: set[int] = set()
    while True:
        free = [i for i in range(len(limits)) if i not in full]
        left = total - sum(limits[i] for i in full)
        weight = sum(shares[i] for i in free)
        if left > 0 and free and weight == 0.0:
            shares = [float(limit) for limit in limits]
            continue
        scale = left / weight if weight else 0.0
        capped = {i for i in free if limits[i] and scale * shares[i] >= limits[i]}
        if not capped:
            break
        full |= capped
    ideal = [float(limits[i]) if i in full else scale * shares[i] for i in range(len(limits))]
    counts = [math.floor(value) for value in ideal]
    by_fraction = sorted(range(len(ideal)), key=lambda i: counts[i] - ideal[i])
    for i in by_fraction[: total - sum(counts)]:
        counts[i] += 1
    return counts
