"""Figures of topologies: where weights are, how they move, and how far topologies are from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lightning_sparse_rnn.report.figure_style import Drawing, as_svg, bare, cut, label_ends, marked_line, panel_axes
from lightning_sparse_rnn.report.groups import Group
from lightning_sparse_rnn.report.series import per_tensor, short
from lightning_sparse_rnn.runs.picture import STYLES, plot_densities
from lightning_sparse_rnn.runs.reading import Run

__all__ = [
    "densities",
    "distance_map",
    "distances_from_start",
    "gates_move",
    "layer_densities",
    "layers_move",
    "moved",
    "moved_in_words",
    "weights_move",
]

Gates = dict[str, dict[str, list[tuple[int, float]]]]


def _gate_densities(run: Run) -> Gates:
    """Return the points (epoch, density) of each gate, one for each update, in tensors that have several gates."""
    gates: Gates = {}
    for row in run.topology:
        tensor = gates.setdefault(short(str(row["tensor"])), {})
        tensor.setdefault(str(row["gate"]), []).append((row["epoch"], row["live"] / max(1, row["total"])))
    return {tensor: found for tensor, found in gates.items() if len(found) > 1}


def gates_move(group: Group) -> bool:
    """Whether the density of any gate has changed in the group's first sparse run."""
    gates = _gate_densities(_first_with_topology(group))
    return any(len({value for _, value in points}) > 1 for found in gates.values() for points in found.values())


def densities(group: Group) -> Drawing:
    """Density of each gate after each update in the group's first sparse run, with a panel for each matrix."""
    run = _first_with_topology(group)
    gates = _gate_densities(run)
    figure = Figure(figsize=(5.0, 0.7 + 1.6 * ((len(gates) + 1) // 2)), layout="constrained")
    plot_densities(figure, gates, f"{group.name}{_of_seed(group, run)}: density of each gate after each update")
    return Drawing(as_svg(figure, f"Density of each gate over epochs, {group.name}"), "wide")


def layers_move(group: Group) -> bool:
    """Whether the density of any tensor has changed in the group's first sparse run."""
    live = per_tensor(_first_with_topology(group).topology, "live")
    return any(len({count for _, count in points}) > 1 for points in live.values())


def layer_densities(group: Group) -> Drawing:
    """Density of each tensor over epochs in the group's first sparse run."""
    run = _first_with_topology(group)
    figure, axes = panel_axes(f"{group.name}{_of_seed(group, run)}")
    live, total = per_tensor(run.topology, "live"), per_tensor(run.topology, "total")
    highest = 0.0
    for index, (tensor, points) in enumerate(live.items()):
        shares = [count / max(1, whole) for (_, count), (_, whole) in zip(points, total[tensor], strict=True)]
        style = STYLES[index % len(STYLES)]
        highest = max([highest, *shares])
        epochs = [epoch for epoch, _ in points]
        if len(epochs) == 1:  # a topology that never changes: draw it for as long as the run lasts
            epochs, shares = [0, max(1, len(run.metrics))], shares * 2
        axes.plot(epochs, shares, linewidth=1.3, label=short(tensor), **style)
    axes.set_ylabel("share of live weights", fontsize=8)
    axes.set_ylim(0, 1.45 * highest or 1.0)
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= min(1.0, 1.45 * highest)])
    axes.legend(frameon=False, fontsize=6.5, ncols=2, loc="upper left", handlelength=3, labelspacing=0.2,
                borderaxespad=0.1, columnspacing=1.2)  # fmt: skip
    return Drawing(as_svg(figure, f"Share of live weights in each layer over epochs, {group.name}"), "panel")


def moved(group: Group) -> Drawing:
    """How many weights each update pruned and regrew in the group's first sparse run."""
    run = _first_with_topology(group)
    figure, axes = panel_axes(f"{group.name}{_of_seed(group, run)}")
    for name, style, mark, size in (("pruned", STYLES[0], "o", 4), ("regrown", STYLES[1], "x", 3)):
        totals = _moved_totals(run, name)
        every = max(1, len(totals) // 12)
        axes.plot(list(totals), list(totals.values()), label=name, marker=mark, markersize=size, markevery=every,
                  linewidth=1.3, **style)  # fmt: skip
    axes.yaxis.set_major_formatter(_thousands)
    axes.set_ylabel("weights in each update", fontsize=8)
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=7)
    return Drawing(as_svg(figure, f"Weights pruned and regrown at each update, {group.name}"), "panel")


def moved_in_words(group: Group) -> str | None:
    """Return a sentence on a group that regrows as many weights as it prunes; ``None`` if it does not.

    Its two lines would be one.
    """
    run = _first_with_topology(group)
    pruned = _moved_totals(run, "pruned")
    if not pruned or pruned != _moved_totals(run, "regrown"):
        return None
    counts = [int(count) for count in pruned.values()]
    regrew = f"{group.name} regrew as many weights as it pruned"
    if len(set(counts)) == 1:
        return f"{regrew}: {counts[0]:,} in each epoch with updates."
    return f"{regrew}: {counts[0]:,} in the first epoch with updates, {counts[-1]:,} in the last."


def weights_move(group: Group) -> bool:
    """Whether any update has pruned or regrown a weight in the group's first sparse run."""
    return any(row.get("pruned") or row.get("regrown") for row in _first_with_topology(group).topology)


def distance_map(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> Drawing:
    """Distances between topologies, as numbers on squares: white at 0, nearly black at 1.

    The scale is the whole one, so that the shades of two reports can be compared. Numbers turn white where that gives
    the better contrast.
    """
    side = 1.3 + 0.36 * len(names)
    cut_names = [cut(name, 24) for name in names]
    figure = Figure(figsize=(max(3.2, side + 0.4), side + 0.3), layout="constrained")
    axes = figure.subplots()
    found = [value for row in values for value in row if value is not None]
    low, high = min(found), max(found)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            ink = "white" if value is not None and value > 0.72 else "black"
            axes.add_patch(_square(j, i, None if value is None else f"{1 - 0.75 * min(value, 1.0):.2f}"))
            axes.text(j, i, "–" if value is None else f"{value:.2f}".lstrip("0") if value < 1 else "1",
                      ha="center", va="center", fontsize=8, color=ink)  # fmt: skip
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
    axes.set_xticks(range(len(names)), cut_names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.set_yticks(range(len(names)), cut_names, fontsize=7.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(
        "Distance between final topologies\n0: the same, 1: nothing in common", x=0.01, ha="left", fontsize=8.5
    )
    says = f"Distances between the final topologies of {', '.join(names)}, from {low:.2f} to {high:.2f}"
    return Drawing(as_svg(figure, says), "wide")


def distances_from_start(moves: Mapping[str, Sequence[tuple[int, float]]]) -> Drawing:
    """Distance of each group's topology from the one it began with, over epochs."""
    figure = Figure(figsize=(5.0, 3.3), layout="constrained")
    axes = figure.subplots()
    for index, points in enumerate(moves.values()):
        axes.plot(*zip(*points, strict=True), **marked_line(index))
    axes.set_xlabel("epochs trained", fontsize=8.5)
    axes.set_ylabel("distance (0: the same)", fontsize=8.5)
    axes.set_ylim(-0.02, 1)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    figure.suptitle("Distance of a run's topology from its first", x=0.01, ha="left", fontsize=9)
    bare(axes)
    figure.draw_without_rendering()
    label_ends(axes, {name: points[-1] for name, points in moves.items()})
    return Drawing(as_svg(figure, f"Distance from the first topology over epochs: {', '.join(moves)}"), "wide")


def _first_with_topology(group: Group) -> Run:
    return next(run for run in group.runs if run.topology)


def _moved_totals(run: Run, name: str) -> dict[float, float]:
    """Return by epoch how many weights were ``"pruned"`` or ``"regrown"``, without the first topology."""
    totals: dict[float, float] = {}
    for row in run.topology:
        if row.get("update", 1) and isinstance(row.get(name), (int, float)):
            totals[row["epoch"]] = totals.get(row["epoch"], 0.0) + float(row[name])
    return totals


def _of_seed(group: Group, run: Run) -> str:
    return f" (seed {run.seed})" if len(group.runs) > 1 else ""


def _square(x: float, y: float, shade: str | None) -> Rectangle:
    look: dict[str, Any] = (
        {"facecolor": shade} if shade else {"facecolor": "white", "hatch": "///", "edgecolor": "0.85"}
    )
    return Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=0.5, **look)


def _thousands(value: float, _: object) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"
