"""Learning rates for one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["scaled_lr"]


@contextmanager
def scaled_lr(groups: list[dict[str, Any]], factor: float) -> Iterator[None]:
    """Multiply every group's learning rate by `factor`, and put the old ones back whatever happens."""
    rates = [group["lr"] for group in groups]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
