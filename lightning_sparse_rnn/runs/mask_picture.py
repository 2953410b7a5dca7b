"""A picture of masks themselves: where in a recurrent matrix its live weights are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

__all__ = ["block_densities", "plot_masks", "shown_tensor"]

# Larger matrices are shown by blocks, so that single weights of a small one and the structure of a large one are seen.
_MOST_ROWS, _MOST_COLUMNS = 96, 60


def shown_tensor(topology: Iterable[Mapping[str, Any]]) -> tuple[str, dict[str, int]] | None:
    """Return the tensor that a picture of masks shows, and how many weights each of its gates has room for.

    It is the last hidden-to-hidden matrix with several gates, or where no name tells which these are, the last tensor
    with several gates; ``None`` where no tensor has several.

    Args:
        topology: rows as in ``topology.csv``.
    """
    gates: dict[str, dict[str, int]] = {}
    for row in topology:
        gates.setdefault(row["tensor"], {})[row["gate"]] = int(row["total"])
    several = [tensor for tensor, sizes in gates.items() if len(sizes) > 1]
    hidden = [tensor for tensor in several if "hh" in tensor or "hidden_to" in tensor or "to_hidden" in tensor]
    return next(((tensor, gates[tensor]) for tensor in reversed(hidden or several)), None)


def block_densities(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the density of each block of a mask, cut into at most so many rows and columns of blocks.

    >>> block_densities(np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool), rows=1, columns=2)
    array([[0.75, 0.  ]])
    """
    flat = mask.reshape(len(mask), -1).astype(np.float64)
    for axis, most in ((0, rows), (1, columns)):
        size = flat.shape[axis]
        starts = np.unique(np.arange(min(size, most)) * size // min(size, most))
        widths = np.diff([*starts, size])
        flat = np.add.reduceat(flat, starts, axis) / np.expand_dims(widths, 1 - axis)
    return flat


def plot_masks(
    figure: Figure | SubFigure, tensor: str, gates: Mapping[str, int], masks: Sequence[tuple[str, np.ndarray]]
) -> None:
    """Draw masks of one tensor side by side, its gates marked, on one scale of densities.

    Args:
        figure: where to draw.
        tensor: its name.
        gates: how many weights each gate has room for, in row order.
        masks: what each is, and the mask, (rows, columns).
    """
    blocks = [block_densities(mask, _MOST_ROWS, _MOST_COLUMNS) for _, mask in masks]
    highest = max(float(block.max()) for block in blocks) or 1.0
    rows = len(masks[0][1])
    ends = list(accumulate(count * rows / sum(gates.values()) for count in gates.values()))
    panels: Sequence[Axes] = figure.subplots(1, len(masks), sharey=True, squeeze=False)[0]
    for axes, (what, mask), block in zip(panels, masks, blocks, strict=True):
        columns = mask.reshape(rows, -1).shape[1]
        image = axes.imshow(block, cmap="Blues", vmin=0.0, vmax=highest, aspect="auto", interpolation="nearest",
                            extent=(0, columns, rows, 0))  # fmt: skip
        for end in ends[:-1]:
            axes.axhline(end, color="#d95f0e", linewidth=1)
        axes.set_title(what, fontsize=8)
        axes.set_xlabel("column", fontsize=8)
    middles = [(begin + end) / 2 for begin, end in zip([0.0, *ends], ends, strict=False)]
    panels[0].set_yticks(middles, list(gates), fontsize=8)
    figure.colorbar(image, ax=list(panels), label="density", fraction=0.04, pad=0.02)
    height, width = (-(-size // min(size, most)) for size, most in zip(
        (rows, columns), (_MOST_ROWS, _MOST_COLUMNS), strict=True))  # fmt: skip
    each = "" if height * width == 1 else f", blocks of {height}×{width} weights"
    figure.suptitle(f"Where the live weights of {tensor} are{each}", fontsize=10, x=0.01, ha="left")
