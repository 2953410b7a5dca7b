"""A picture of a recurrent matrix's masks: where its live weights were at first, and where they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from lightning_sparse_rnn.runs.folder import kept_masks
from lightning_sparse_rnn.sparsity.mask_files import load_masks

__all__ = ["MaskPair", "cell_densities", "first_and_last", "plot_masks"]

_MOST_CELLS = 60  # rows and columns of the picture: more could not be told apart


@dataclass(frozen=True)
class MaskPair:
    """The first and the last topology that a run kept of one matrix.

    Attributes:
        name: the matrix's.
        first, last: boolean masks of shape (rows, columns).
        gates: each gate's number of rows, in row order.
    """

    name: str
    first: np.ndarray
    last: np.ndarray
    gates: Mapping[str, int]


def first_and_last(folder: Path, topology: Sequence[Mapping[str, Any]]) -> MaskPair | None:
    """Return two masks of the first hidden-to-hidden matrix, or of the first with gates where none is named so.

    ``None`` if no matrix has gates, or fewer than two topologies were kept that can be read.

    Args:
        folder: a run's.
        topology: its rows, as in ``topology.csv``.
    """
    kept = kept_masks(folder)
    sizes: dict[str, dict[str, int]] = {}
    for row in topology:
        if row["gate"] != "all":
            sizes.setdefault(str(row["tensor"]), {})[str(row["gate"])] = int(row["total"])
    if len(kept) < 2 or not sizes:
        return None
    try:
        first, last = load_masks(kept[0][1]), load_masks(kept[-1][1])
    except (ValueError, OSError):  # a damaged file costs the run a picture, not its results
        return None
    name = next((name for name in sizes if "_hh_" in name), next(iter(sizes)))
    if name not in first or name not in last or first[name].ndim != 2 or first[name].shape != last[name].shape:
        return None
    columns = first[name].shape[1]
    return MaskPair(name, first[name], last[name], {gate: size // columns for gate, size in sizes[name].items()})


def cell_densities(mask: np.ndarray, most: int = _MOST_CELLS) -> np.ndarray:
    """Return the share of live weights in each cell of a grid of at most ``most`` × ``most`` cells over a mask.

    Cells differ by one row or column at most, and together hold every weight once.
    """
    rows, columns = (np.linspace(0, n, min(n, most) + 1).astype(int) for n in mask.shape)
    sums = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), rows[:-1], axis=0), columns[:-1], axis=1)
    return sums / np.outer(np.diff(rows), np.diff(columns))


def plot_masks(figure: Figure | SubFigure, pair: MaskPair) -> None:
    """Draw the density of each cell before and after on one colour scale, with lines between gates."""
    grids = [cell_densities(mask) for mask in (pair.first, pair.last)]
    height, width = pair.first.shape
    top = max(float(grid.max()) for grid in grids) or 1.0
    axes = figure.subplots(1, 2, sharey=True)
    ends = np.cumsum(list(pair.gates.values()))
    for each, grid, when in zip(axes, grids, ("first topology", "last topology"), strict=True):
        image = each.imshow(grid, cmap="Blues", vmin=0, vmax=top, aspect="auto", extent=(0, width, height, 0))
        for end in ends[:-1]:
            each.axhline(end, color="#d95f0e", linewidth=1)
        each.set_title(when, fontsize=8, loc="left")
        each.set_xlabel("column", fontsize=8)
        each.tick_params(labelsize=8)
    middles = [end - rows / 2 for end, rows in zip(ends, pair.gates.values(), strict=True)]
    axes[0].set_yticks(middles, list(pair.gates), fontsize=8)
    figure.colorbar(image, ax=axes, label="share of live weights")
    figure.suptitle(f"Where the live weights of {pair.name} are", fontsize=10, x=0.01, ha="left")
