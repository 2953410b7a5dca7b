"""Measurements that take turns, so that whatever disturbs the machine meets all sides alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.setting import Setting

__all__ = ["Figure", "compare", "take_turns"]


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        benchmark: what was measured.
        what: of which side this line is.
        seconds: median.
        ratio: median of the ratios to ``beside`` turn by turn; ``None`` where there is nothing to compare with.
        floor: the least time that hardware allows, in seconds; ``None`` where there is no such floor.
        floor_is: what the floor was made from.
        more: other figures by name.
    """

    benchmark: str
    what: str
    seconds: float
    beside: str | None = None
    ratio: float | None = None
    floor: float | None = None
    floor_is: str = ""
    more: dict[str, Any] = field(default_factory=dict)


def take_turns(sides: Mapping[str, Callable[[], Any]], setting: Setting) -> dict[str, list[float]]:
    """Return the seconds of each side, turn by turn; the first turn warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(setting.repeats + 1):
        for name, run in sides.items():
            start = setting.now()
            run()
            if turn:
                times[name].append(setting.now() - start)
    return times


def compare(
    benchmark: str,
    times: Mapping[str, list[float]],
    beside: str | None,
    floors: Mapping[str, tuple[float, str]],
    more: Mapping[str, dict[str, Any]] | None = None,
    each: int = 1,
) -> list[Figure]:
    """Turn measurements into lines, one a side.

    Args:
        beside: the side the others are compared with.
        floors: seconds, and what they were made from, by side.
        more: other figures by side.
        each: how many of what is counted a measurement has.
    """
    return [
        Figure(
            benchmark,
            what,
            statistics.median(seconds) / each,
            beside,
            statistics.median(a / b for a, b in zip(seconds, times[beside], strict=True)) if beside else None,
            *(floors.get(what) or (None, "")),
            (more or {}).get(what, {}),
        )
        for what, seconds in times.items()
    ]
