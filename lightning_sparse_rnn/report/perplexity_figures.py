"""Figures of perplexity: after training, while training, and against sparsity."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_sparse_rnn.report.figure_style import (
    GREY,
    HALF,
    INK,
    Drawing,
    as_svg,
    bare,
    cut,
    label_ends,
    lone,
    marked_line,
    panel_axes,
)
from lightning_sparse_rnn.report.groups import Group
from lightning_sparse_rnn.report.series import column
from lightning_sparse_rnn.runs.picture import log_perplexity
from lightning_sparse_rnn.runs.reading import Row, is_number

__all__ = [
    "by_sparsity",
    "curve_limits",
    "curves",
    "final_perplexities",
    "first_averaged",
    "mean_curve",
    "over_sparsity",
]

Points = list[tuple[float, float]]
_MOST_POINTS = 60  # in a line of the background


def final_perplexities(groups: Sequence[Group]) -> Drawing:
    """A row for each group, in order: a dot for each seed, a bar at the mean, and one standard deviation around it."""
    figure = Figure(figsize=(HALF, 0.9 + 0.27 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for row, group in enumerate(groups):
        values = group.values("test_ppl")
        mean = statistics.fmean(values)
        if len(values) > 1:
            deviation = statistics.stdev(values)
            axes.plot([mean - deviation, mean + deviation], [row, row], color=GREY, linewidth=5, solid_capstyle="butt")
        axes.plot(values, [row] * len(values), "o", color=INK, markersize=4, alpha=0.6, markeredgewidth=0)
        axes.plot([mean], [row], "|", color="black", markersize=13, markeredgewidth=1.6)
        axes.annotate(f"{mean:.1f}", (1.0, row), xycoords=("axes fraction", "data"), xytext=(4, 0), va="center",
                      textcoords="offset points", annotation_clip=False)  # fmt: skip
    axes.set_yticks(range(len(groups)), [cut(group.name, 34) for group in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlabel("test perplexity (lower is better)")
    axes.grid(axis="x", alpha=0.3)
    several = any(len(group.values("test_ppl")) > 1 for group in groups)
    marks = "dots: seeds, bar: mean, grey: ± standard deviation" if several else "one seed each"
    figure.suptitle(f"Test perplexity: {marks}", x=0.01, ha="left")
    bare(axes)
    best = f"{groups[0].name}, {groups[0].mean('test_ppl'):.1f}"
    return Drawing(as_svg(figure, f"Test perplexity of {len(groups)} methods; lowest: {best}"), "wide")


def curves(
    group: Group, others: Mapping[str, Points], limits: tuple[float, float] | None, *, keyed: bool = True
) -> Drawing:
    """A group's perplexity over epochs, its first validations of averaged weights marked, and other groups behind it.

    Args:
        group: the group whose validation is drawn for each seed, and whose training as the mean over seeds.
        others: mean validation curves by the names of their groups, of :func:`mean_curve`; the group's own may be
            among them.
        limits: the range of perplexity that is shown.
        keyed: whether the figure says what its lines are.
    """
    figure, axes = panel_axes(group.name)
    for name, points in others.items():
        if name != group.name and points:
            axes.plot(*zip(*_thinned(points), strict=True), color=GREY, linewidth=0.7, **lone(points))
    averaged = [point for run in group.runs if (point := first_averaged(run.metrics)) is not None]
    trained = mean_curve(group, "train_ppl")
    for run in group.runs:
        points = column(run.metrics, "val_ppl")
        if points:
            axes.plot(*zip(*points, strict=True), color=INK, linewidth=1.3, alpha=0.85, **lone(points))
    if trained:
        axes.plot(*zip(*trained, strict=True), color="black", linewidth=1, linestyle=":", **lone(trained))
    if averaged:
        axes.plot(*zip(*averaged, strict=True), "v", color="black", markersize=5)
    axes.set_ylabel("perplexity (log scale)")
    log_perplexity(axes, limits)
    several = len(group.runs) > 1
    key = [
        Line2D([], [], color=INK, label="validation" + ", each seed" * several),
        Line2D([], [], color="black", linestyle=":", linewidth=1, label="training" + ", mean" * several),
    ]
    if averaged:
        label = "averaged weights from here"
        key.append(Line2D([], [], color="black", marker="v", markersize=4, linestyle="", label=label))
    if len(others) > 1:
        key.append(Line2D([], [], color=GREY, linewidth=0.8, label="other methods"))
    if keyed:
        axes.legend(handles=key, frameon=False, loc="upper right", labelspacing=0.2, borderaxespad=0.0)
    says = f"Perplexity over epochs of {group.name}"
    if averaged:
        when = " or ".join(f"{epoch:g}" for epoch in sorted({epoch for epoch, _ in averaged}))
        says += f"; averaged weights are first validated after {when} epochs"
    return Drawing(as_svg(figure, says), "panel")


def curve_limits(groups: Sequence[Group]) -> tuple[float, float] | None:
    """Return a range of perplexity that shows all groups' curves, or ``None`` if there is nothing to show.

    Curves may leave it in their first epoch, where perplexities are so high that the rest would look flat.
    """
    values = [
        value
        for group in groups
        for run in group.runs
        for name in ("val_ppl", "train_ppl")
        for epoch, value in column(run.metrics, name)
        if math.isfinite(value) and value > 0 and (epoch > 1 or len(run.metrics) == 1)
    ]
    if not values:
        return None
    low, high = 0.92 * min(values), 1.08 * max(values)
    return low, high * (high / low) ** 0.3  # with room for the key at the top


def first_averaged(metrics: Sequence[Row]) -> tuple[float, float] | None:
    """Return the point (epochs trained, perplexity) of the first validation of averaged weights, if there was one."""
    for row in metrics:
        value = row.get("val_ppl")
        if row.get("averaging") and is_number(value):
            return row["epoch"] + 1, value
    return None


def mean_curve(group: Group, name: str) -> Points:
    """Return the points (epochs trained, mean of a metric) over those of the group's runs that have come so far."""
    found: dict[float, list[float]] = {}
    for run in group.runs:
        for epoch, value in column(run.metrics, name):
            found.setdefault(epoch, []).append(value)
    return [(epoch, statistics.fmean(values)) for epoch, values in sorted(found.items())]


def over_sparsity(groups: Sequence[Group]) -> Drawing:
    """Test perplexity against sparsity, a line for each method; a dense network's is horizontal."""
    figure = Figure(figsize=(HALF, 3.4), layout="constrained")
    axes = figure.subplots()
    found = by_sparsity(groups)
    for index, points in enumerate(found.values()):
        axes.plot(*zip(*points, strict=True), **marked_line(index))
    ends = {method: points[-1] for method, points in found.items()}
    right = max(x for points in found.values() for x, _ in points)
    for method, value in _only_dense(groups).items():
        axes.axhline(value, color="#666666", linewidth=0.9, linestyle=(0, (8, 4)))
        ends[method] = (right, value)
    axes.set_xlabel("sparsity: share of weights that are zero")
    axes.set_ylabel("test perplexity (log scale)")
    log_perplexity(axes)
    axes.grid(alpha=0.25)
    figure.suptitle("Test perplexity against sparsity, mean over seeds", x=0.01, ha="left")
    bare(axes)
    figure.draw_without_rendering()  # which sets the limits
    label_ends(axes, ends)
    return Drawing(as_svg(figure, f"Test perplexity against sparsity of {', '.join(found)}"), "wide")


def by_sparsity(groups: Sequence[Group]) -> dict[str, Points]:
    """Return the points (sparsity, mean test perplexity) of each method that was run at several sparsities.

    Where a method was run with several settings at one sparsity, the best of them counts.
    """
    return {method: points for method, points in _by_method(groups).items() if len(points) > 1}


def _only_dense(groups: Sequence[Group]) -> dict[str, float]:
    """Return the mean test perplexity of each method that was run at sparsity 0 and at no other."""
    found = _by_method(groups).items()
    return {method: points[0][1] for method, points in found if len(points) == 1 and points[0][0] == 0}


def _by_method(groups: Sequence[Group]) -> dict[str, Points]:
    """Return each method's best mean test perplexity at each of its sparsities, in ascending order of sparsity."""
    best: dict[str, dict[float, float]] = {}
    for group in groups:
        sparsity, value = _sparsity(group), group.mean("test_ppl")
        if math.isfinite(sparsity) and math.isfinite(value):
            points = best.setdefault(str(group.runs[0].settings.get("chosen.method") or group.name), {})
            points[sparsity] = min(value, points.get(sparsity, math.inf))
    return {method: sorted(points.items()) for method, points in best.items()}


def _sparsity(group: Group) -> float:
    """Return the sparsity that a group's method was given, or that its runs ended with where none is written down.

    A small dense network counts as being of the sparsity at which a sparse one has as many weights.
    """
    settings = group.runs[0].settings
    for name in ("method.weights_of_sparsity", "method.sparsity"):
        if is_number(settings.get(name)):
            return float(settings[name])
    return group.mean("sparsity")


def _thinned(points: Points) -> Points:
    every = max(1, math.ceil(len(points) / _MOST_POINTS))
    return points if every == 1 else [*points[:-1:every], points[-1]]
