"""Whether two methods differ: differences seed by seed, and how well their mean is known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["PairedDifference", "paired_difference", "student_quantile"]


@dataclass(frozen=True)
class PairedDifference:
    """The differences of one method from another over the seeds that both have.

    Attributes:
        pairs: the number of seeds.
        mean: the mean difference.
        half_width: half the width of the 95 % interval around the mean; ``None`` with a single pair, which says
            nothing of how seeds vary.
    """

    pairs: int
    mean: float
    half_width: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval's two ends."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)


def paired_difference(values: Mapping[str, float], reference: Mapping[str, float]) -> PairedDifference | None:
    """Return how ``values`` differ from those of a reference, both by seed; ``None`` if they share no seed.

    The interval is Student's for paired samples: mean ± t·s/√n, with the differences' standard deviation s and the
    0.975 quantile t of n − 1 degrees of freedom. It takes differences to be normally distributed over seeds.

    Example:
        >>> found = paired_difference({"1": 3.0, "2": 5.0}, {"1": 1.0, "2": 4.0, "3": 9.0})
        >>> found.pairs, found.mean, round(found.half_width, 2)
        (2, 1.5, 6.35)
    """
    steps = [value - reference[seed] for seed, value in values.items() if seed in reference]
    if not steps:
        return None
    return PairedDifference(len(steps), statistics.fmean(steps), _half_width(steps))


def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution with a whole number of degrees of freedom.

    Args:
        probability: in [0.5, 1).
        freedom: the degrees of freedom, at least 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0.5 <= probability < 1 or freedom < 1:
        raise ValueError(
            f"Expected a probability in [0.5, 1) and at least one degree of freedom, got {probability} and {freedom}."
        )
    low, high = 0.0, 1.0
    while _probability_below(high, freedom) < probability:
        high *= 2
    while low < (middle := (low + high) / 2) < high:  # until no number lies between them
        low, high = (middle, high) if _probability_below(middle, freedom) < probability else (low, middle)
    return high


def _half_width(steps: Sequence[float]) -> float | None:
    if len(steps) < 2:
        return None
    return student_quantile(0.975, len(steps) - 1) * statistics.stdev(steps) / math.sqrt(len(steps))


def _probability_below(t: float, freedom: int) -> float:
    """Return P(T < t) for t ≥ 0 by the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + within) / 2
