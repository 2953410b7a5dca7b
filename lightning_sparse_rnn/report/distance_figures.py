"""Figures of how far topologies are from each other, and from the one that they began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_sparse_rnn.report.figure_style import (
    GREY,
    HALF,
    Drawing,
    as_svg,
    bare,
    cut,
    label_ends,
    marked_line,
)
from lightning_sparse_rnn.runs.picture import count_epochs

__all__ = ["distance_map", "distances_from_start", "shade"]

# Light at both ends: black can be read on each shade, on a dark page too.
_SHADES = LinearSegmentedColormap.from_list("distance", ["#ffffff", "#c6dbef", "#6baed6"])
_BLACK = "#101418"  # which is black on a dark page, too


def shade(distance: float) -> str:
    """Return the colour of a distance: the scale is the whole one, 0 to 1, so that two reports can be compared."""
    return to_hex(_SHADES(min(max(distance, 0.0), 1.0)))


def distance_map(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> Drawing:
    """Distances between topologies, as numbers on squares: the darker, the further apart."""
    cut_names = [cut(name, 24) for name in names]
    figure = Figure(figsize=(HALF, min(HALF, 1.6 + 0.36 * len(names))), layout="constrained")
    axes = figure.subplots()
    found = [value for row in values for value in row if value is not None]
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axes.add_patch(_square(j, i, value))
            text = "–" if value is None else f"{value:.2f}".lstrip("0") if value < 1 else "1"
            color: dict[str, Any] = {} if value is None else {"color": _BLACK}
            axes.text(j, i, text, ha="center", va="center", **color)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(len(names)), cut_names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), cut_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(
        "Distance between final topologies\n0 (white): the same, 1 (blue): nothing in common", x=0.01, ha="left"
    )
    says = f"Distances between the final topologies of {', '.join(names)}, from {min(found):.2f} to {max(found):.2f}"
    return Drawing(as_svg(figure, says), "wide")


def distances_from_start(moves: Mapping[str, Sequence[tuple[int, float]]]) -> Drawing:
    """Distance of each group's topology from the one it began with, over epochs."""
    figure = Figure(figsize=(HALF, 3.6), layout="constrained")
    axes = figure.subplots()
    for index, points in enumerate(moves.values()):
        axes.plot(*zip(*points, strict=True), **marked_line(index))
    axes.set_xlabel("epochs trained")
    axes.set_ylabel("distance (0: the same)")
    axes.set_ylim(-0.02, 1)
    count_epochs(axes)
    axes.grid(alpha=0.25)
    figure.suptitle("Distance of a run's topology from its first", x=0.01, ha="left")
    bare(axes)
    figure.draw_without_rendering()
    label_ends(axes, {name: points[-1] for name, points in moves.items()})
    return Drawing(as_svg(figure, f"Distance from the first topology over epochs: {', '.join(moves)}"), "wide")


def _square(x: float, y: float, value: float | None) -> Rectangle:
    look: dict[str, Any] = (
        {"facecolor": "none", "hatch": "///", "edgecolor": GREY}
        if value is None
        else {"facecolor": shade(value), "edgecolor": GREY}
    )
    return Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=0.5, **look)
