"""A recurrent matrix's masks seen from afar: where its live weights were at first, and where they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from lightning_sparse_rnn.runs.folder import kept_masks
from lightning_sparse_rnn.sparsity.mask_files import load_masks

__all__ = ["MaskView", "cell_densities", "highest", "plot_masks", "rows_of_gates", "shown_matrix", "view", "views"]

# Cells of the picture: more could not be told apart. A multiple of 2, 3 and 4 gates, so that cells end where gates do.
_MOST_ROWS, _MOST_COLUMNS = 96, 48
_EDGE = "#d95f0e"  # the lines between gates
_LINE = 0.065  # of a picture's height, that a line of text takes


@dataclass(frozen=True)
class MaskView:
    """One topology of one matrix.

    Attributes:
        when: words that say of which moment it is.
        cells: the share of live weights in each cell, of shape (rows of cells, columns of cells).
        gates: the share of live weights in each gate, in row order.
        ends: for each gate, the row after its last.
        shape: rows and columns of the matrix.
    """

    when: str
    cells: np.ndarray
    gates: dict[str, float]
    ends: list[int]
    shape: tuple[int, int]


def shown_matrix(topology: Iterable[Mapping[str, Any]]) -> tuple[str, dict[str, int]] | None:
    """Return the name of the matrix that pictures show, and its gates' numbers of weights; ``None`` if there is none.

    It is the first matrix between hidden states that has gates, or the first of any that has, where none is named so.

    Args:
        topology: rows as in ``topology.csv``.
    """
    sizes: dict[str, dict[str, int]] = {}
    for row in topology:
        if row["gate"] != "all":
            sizes.setdefault(str(row["tensor"]), {})[str(row["gate"])] = int(row["total"])
    name = next((name for name in sizes if "_hh" in name), next(iter(sizes), None))
    return None if name is None else (name, sizes[name])


def cell_densities(mask: np.ndarray, rows: int = _MOST_ROWS, columns: int = _MOST_COLUMNS) -> np.ndarray:
    """Return the share of live weights in each cell of a grid of at most ``rows`` × ``columns`` cells over a mask.

    Cells differ by one row or column at most, and together hold every weight once.

    >>> cell_densities(np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool), rows=1, columns=2)
    array([[0.75, 0.  ]])
    """
    edges = [np.arange(cells + 1) * size // cells for size, cells in _grid(mask.shape, rows, columns)]
    # Columns first, in a narrow type: the matrix itself is never copied in a wide one.
    sums = np.add.reduceat(mask.astype(np.uint8, copy=False), edges[1][:-1], axis=1, dtype=np.uint32)
    sums = np.add.reduceat(sums, edges[0][:-1], axis=0)
    return sums / np.outer(*map(np.diff, edges))


def rows_of_gates(gates: Mapping[str, int], columns: int) -> dict[str, int]:
    """Return each gate's number of rows from its number of weights."""
    return {gate: size // columns for gate, size in gates.items()}


def view(mask: np.ndarray, rows: Mapping[str, int], when: str) -> MaskView:
    """Return a mask seen from afar.

    Args:
        mask: boolean, of shape (rows, columns).
        rows: each gate's number of rows, in row order.
        when: words that say of which moment it is.
    """
    ends = [int(end) for end in np.cumsum(list(rows.values()))]
    parts = np.split(mask, ends[:-1])
    densities = {gate: float(part.mean()) for gate, part in zip(rows, parts, strict=True)}
    return MaskView(when, cell_densities(mask), densities, ends, (mask.shape[0], mask.shape[1]))


def views(
    folder: Path, topology: Sequence[Mapping[str, Any]], now: tuple[int, Mapping[str, np.ndarray]] | None = None
) -> tuple[str, list[MaskView]] | None:
    """Return the name of a run's matrix and views of its first and its last topology; ``None`` if there is none.

    There is one view where the two are the same. What is damaged costs the picture, and nothing else.

    Args:
        folder: a run's.
        topology: its rows, as in ``topology.csv``.
        now: how many epochs the run has been trained for, and its masks by name. If not given, the last topology is
            the last that was kept.
    """
    kept, shown = kept_masks(folder), shown_matrix(topology)
    if not kept or shown is None:
        return None
    name, gates = shown
    try:
        first = load_masks(kept[0][1], [name]).get(name)
        ended, masks = now or (kept[-1][0], load_masks(kept[-1][1], [name]))
    except (ValueError, OSError):
        return None
    last = masks.get(name)
    if first is None or last is None or first.ndim != 2 or first.shape != last.shape:
        return None
    rows = rows_of_gates(gates, first.shape[1])
    if sum(rows.values()) != len(first):
        return None
    began = kept[0][0]
    # Updates by epochs come after the first one has ended: what was kept then is still the topology of the first step.
    whole = began == 0 or not any(row.get("update") and row["epoch"] < began for row in topology)
    names = ["at the start" if whole else f"after epoch {began}", f"after epoch {ended}"]
    if np.array_equal(first, last):
        return name, [view(first, rows, f"{names[0]} and {names[1]}" if began < ended else names[0])]
    return name, [view(first, rows, names[0]), view(last, rows, names[1])]


def highest(shown: Iterable[MaskView]) -> float:
    """Return the top of a scale for all of these: the density of their fullest cell, or 1 if all are empty."""
    return max((float(each.cells.max()) for each in shown), default=0.0) or 1.0


def plot_masks(panels: Sequence[Axes], shown: Sequence[MaskView], top: float) -> AxesImage:
    """Draw views side by side on one scale of densities from 0 to ``top``, and return the last image, for the legend.

    Lines part the gates; beside each gate stands its density, and its name beside the first view.
    """
    for index, (axes, each) in enumerate(zip(panels, shown, strict=True)):
        rows, columns = each.shape
        image = axes.imshow(each.cells, cmap="Blues", vmin=0.0, vmax=top, aspect="auto", interpolation="none",
                            extent=(0, columns, rows, 0))  # fmt: skip
        for end in each.ends[:-1]:
            axes.axhline(end, color=_EDGE, linewidth=1)
        middles = [(begin + end) / 2 for begin, end in zip([0, *each.ends], each.ends, strict=False)]
        names = [f"{'' if index else gate} {density:.2f}".strip() for gate, density in each.gates.items()]
        axes.set_yticks(_apart(middles, _LINE * rows), names)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.set_title(each.when, loc="left")
    return image


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending places, moved on where they would come closer than ``gap`` to the one before."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    return moved


def _grid(shape: tuple[int, ...], rows: int, columns: int) -> list[tuple[int, int]]:
    return [(size, min(size, most)) for size, most in zip(shape, (rows, columns), strict=True)]
