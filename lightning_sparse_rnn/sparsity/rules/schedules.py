"""Prune rates and sparsities over time. A schedule takes the share that is done, and the first and last value."""

from __future__ import annotations

import math
from collections.abc import Callable

from lightning_sparse_rnn.utilities.checks import check_fraction
from lightning_sparse_rnn.utilities.lookup import find_rule, path_of

__all__ = ["SCHEDULES", "PruneRate", "Schedule", "SparsityRamp", "constant", "cosine", "cubic", "linear"]

Schedule = Callable[[float, float, float], float]


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


SCHEDULES: dict[str, Schedule] = {
    "cosine": cosine,
    "linear": linear,
    "cubic": cubic,
    "constant": constant,
}


class PruneRate:
    """The share of live weights that an update replaces, over training.

    Args:
        prune_rate: at the start, in [0, 1).
        min_prune_rate: at the end, at most ``prune_rate``.
        schedule: a name in :data:`SCHEDULES`, a :data:`Schedule`, or its import path.

    >>> PruneRate(0.5, 0.1, "linear").at(0.25)
    0.4

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    def __init__(self, prune_rate: float, min_prune_rate: float, schedule: str | Schedule) -> None:
        self._first = check_fraction("prune_rate", prune_rate)
        self._last = check_fraction("min_prune_rate", min_prune_rate)
        self._schedule: Schedule = find_rule("schedule", schedule, SCHEDULES)
        self.name = path_of(schedule)
        self.ends = self._schedule is not constant
        if self.ends and min_prune_rate > prune_rate:
            raise ValueError(
                f"Expected `prune_rate` of at least `min_prune_rate`, at which it ends, got {prune_rate} and "
                f"{min_prune_rate}. For a topology that never changes, set `update_every_n_epochs` to None."
            )

    def at(self, progress: float) -> float:
        """The rate when the share ``progress`` of training is done, in [0, 1]."""
        return self._schedule(progress, self._first, self._last)


class SparsityRamp:
    """A sparsity that grows while a network trains.

    Args:
        initial_sparsity: at the start, in [0, 1).
        sparsity: at the end, at least ``initial_sparsity``.
        sparsity_schedule: a name in :data:`SCHEDULES`, a :data:`Schedule`, or its import path.
        sparsity_reached_at: share of training, in (0, 1), from which on the sparsity is ``sparsity``.

    >>> round(SparsityRamp(0.0, 0.8, "cubic", sparsity_reached_at=0.5).at(0.25), 6)
    0.7

    Raises:
        ValueError: an argument is out of range or unknown, or the schedule does not end at ``sparsity``.
    """

    def __init__(
        self, initial_sparsity: float, sparsity: float, sparsity_schedule: str | Schedule, sparsity_reached_at: float
    ) -> None:
        self.first, self.last = check_fraction("initial_sparsity", initial_sparsity), float(sparsity)
        if initial_sparsity > sparsity:
            raise ValueError(f"Expected `initial_sparsity` of at most `sparsity` {sparsity}, got {initial_sparsity}.")
        if not 0.0 < sparsity_reached_at < 1.0:
            raise ValueError(f"Expected `sparsity_reached_at` above 0 and below 1, got {sparsity_reached_at}.")
        self._schedule: Schedule = find_rule("sparsity_schedule", sparsity_schedule, SCHEDULES)
        self._reached_at = sparsity_reached_at
        if abs(self.at(1.0) - self.last) > 1e-9:
            raise ValueError(
                f"Expected a `sparsity_schedule` that ends at `sparsity` {sparsity}, got "
                f"{path_of(sparsity_schedule)!r}, which ends at {self.at(1.0):g}."
            )

    @classmethod
    def optional(
        cls, initial_sparsity: float | None, sparsity: float, sparsity_schedule: str | Schedule, reached_at: float
    ) -> SparsityRamp | None:
        """Return a ramp, or ``None`` without an ``initial_sparsity``; the arguments must be good either way."""
        ramp = cls(sparsity if initial_sparsity is None else initial_sparsity, sparsity, sparsity_schedule, reached_at)
        return None if initial_sparsity is None else ramp

    def at(self, progress: float) -> float:
        """The sparsity when the share ``progress`` of training is done, in [0, 1]."""
        return float(self._schedule(min(1.0, progress / self._reached_at), self.first, self.last))
