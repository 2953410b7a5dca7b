"""Whether two methods differ: differences seed by seed, and how well their mean is known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

__all__ = ["PairedDifference", "paired_difference"]


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


def _half_width(steps: Sequence[float]) -> float | None:
    if len(steps) < 2:
        return None
    return float(stdtrit(len(steps) - 1, 0.975)) * statistics.stdev(steps) / math.sqrt(len(steps))
