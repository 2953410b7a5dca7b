"""Pools: sets of positions, across tensors, within which weights compete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Pool", "Segment", "gather", "scatter"]


@dataclass(frozen=True)
class Segment:
    """Positions ``start`` to ``stop`` of the flattened tensor ``name``."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Pool:
    """Segments whose weights compete with each other. ``key`` names the pool among its model's."""

    key: str
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """The number of positions."""
        return sum(segment.stop - segment.start for segment in self.segments)


def gather(pool: Pool, flat: Mapping[str, Tensor]) -> Tensor:
    """Return the pool's values of the flattened tensors, as one tensor on the device of the first."""
    parts = [flat[segment.name][segment.start : segment.stop] for segment in pool.segments]
    return parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])


def scatter(pool: Pool, values: Tensor, flat: Mapping[str, Tensor]) -> None:
    """Write what :func:`gather` read back to where it came from."""
    parts = values.split([segment.stop - segment.start for segment in pool.segments])
    for segment, part in zip(pool.segments, parts, strict=True):
        flat[segment.name][segment.start : segment.stop] = part
