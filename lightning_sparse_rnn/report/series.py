"""Columns of runs' tables as points to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_sparse_rnn.runs.reading import Row, is_number

__all__ = ["column", "per_tensor", "short"]


def column(rows: Iterable[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """Return the points (epochs trained, value) of the rows that have a number in the column ``name``."""
    return [(row["epoch"] + 1, row[name]) for row in rows if is_number(row.get(name))]


def per_tensor(rows: Iterable[Row], name: str) -> dict[str, list[tuple[int, float]]]:
    """Return the points (epoch, sum of a column over gates) of each tensor, one for each update.

    Updates that go by steps may be several in one epoch.
    """
    sums: dict[str, dict[tuple[int, Any], float]] = {}
    for row in rows:
        tensor, update = sums.setdefault(str(row["tensor"]), {}), (row["epoch"], row.get("update"))
        tensor[update] = tensor.get(update, 0.0) + row[name]
    return {tensor: [(epoch, total) for (epoch, _), total in found.items()] for tensor, found in sums.items()}


def short(tensor: str) -> str:
    """Return a tensor's name without the part that all names share."""
    return tensor.removeprefix("network.")
