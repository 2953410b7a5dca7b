"""Figures of topologies: where weights are, and how they move. Lines that would coincide become a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_sparse_rnn.report.figure_style import HALF, Drawing, as_svg, bare, label_ends, panel_axes
from lightning_sparse_rnn.report.groups import Group
from lightning_sparse_rnn.report.series import per_tensor, short
from lightning_sparse_rnn.runs.picture import STYLES, count_epochs, plot_densities
from lightning_sparse_rnn.runs.reading import Run

__all__ = [
    "densities",
    "gates_differ",
    "gates_move",
    "layer_densities",
    "layers_differ",
    "layers_move",
    "moved",
    "moved_in_words",
    "moves_evenly",
    "weights_move",
]

_ABOVE, _BELOW, _LEGEND = 0.48, 0.5, 0.2  # inches around the panels of gates, and for a line of their names
_APART = 0.01  # densities of gates that differ by less lie on one another in a figure
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


def gates_differ(group: Group) -> bool:
    """Whether gates of any matrix have differed in density by more than can hardly be seen, after any update."""
    for gates in _gate_densities(_first_with_topology(group)).values():
        for points in zip(*gates.values(), strict=False):
            shares = [share for _, share in points]
            if max(shares) - min(shares) >= _APART:
                return True
    return False


def densities(group: Group) -> Drawing:
    """Density of each gate after each update in the group's first sparse run, with a panel for each matrix."""
    run = _first_with_topology(group)
    gates = _gate_densities(run)
    lines = (len(gates) + 1) // 2
    names = {gate for of_tensor in gates.values() for gate in of_tensor}
    below = _BELOW + _LEGEND * ((len(names) + 3) // 4)
    height = _ABOVE + below + 1.6 * lines
    # By hand: a layout that is constrained takes as long as the figure itself.
    figure = Figure(figsize=(HALF, height))
    figure.subplots_adjust(
        left=0.1, right=0.99, top=1 - _ABOVE / height, bottom=below / height, wspace=0.06, hspace=0.28
    )
    plot_densities(figure, gates, f"{group.name}{_of_seed(group, run)}: density of each gate after each update")
    return Drawing(as_svg(figure, f"Density of each gate over epochs, {group.name}"), "wide")


def layers_differ(group: Group) -> bool:
    """Whether tensors have differed in density by more than can hardly be seen, at any time."""
    run = _first_with_topology(group)
    live, total = per_tensor(run.topology, "live"), per_tensor(run.topology, "total")
    shares = [[count / max(1, total[tensor][0][1]) for _, count in points] for tensor, points in live.items()]
    return any(max(found) - min(found) >= _APART for found in zip(*shares, strict=False))


def layers_move(group: Group) -> bool:
    """Whether the density of any tensor has changed in the group's first sparse run."""
    live = per_tensor(_first_with_topology(group).topology, "live")
    return any(len({count for _, count in points}) > 1 for points in live.values())


def layer_densities(group: Group) -> Drawing:
    """Density of each tensor over epochs in the group's first sparse run."""
    run = _first_with_topology(group)
    figure = Figure(figsize=(HALF, 2.9), layout="constrained")
    axes = figure.subplots()
    live, total = per_tensor(run.topology, "live"), per_tensor(run.topology, "total")
    ends: dict[str, tuple[float, float]] = {}
    for index, (tensor, points) in enumerate(live.items()):
        shares = [count / max(1, whole) for (_, count), (_, whole) in zip(points, total[tensor], strict=True)]
        axes.plot([epoch for epoch, _ in points], shares, linewidth=1.3, **STYLES[index % len(STYLES)])
        ends[short(tensor)] = (points[-1][0], shares[-1])
    axes.set_xlabel("epochs trained")
    axes.set_ylabel("share of live weights")
    axes.set_ylim(0, None)
    count_epochs(axes)
    axes.grid(alpha=0.25)
    figure.suptitle(f"{group.name}{_of_seed(group, run)}", x=0.01, ha="left")
    bare(axes)
    figure.draw_without_rendering()  # which sets the limits
    label_ends(axes, ends)
    return Drawing(as_svg(figure, f"Share of live weights in each layer over epochs, {group.name}"), "wide")


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
    axes.set_ylabel("weights")
    axes.set_ylim(0, None)
    axes.legend(frameon=False)
    return Drawing(as_svg(figure, f"Weights pruned and regrown at each update, {group.name}"), "panel")


def moves_evenly(group: Group) -> bool:
    """Whether the group's first sparse run has regrown as many weights as it pruned in every epoch with updates."""
    run = _first_with_topology(group)
    return _moved_totals(run, "pruned") == _moved_totals(run, "regrown")


def moved_in_words(groups: Sequence[Group]) -> str:
    """Return a sentence on groups whose weights move evenly: how many in the first epoch with updates, and the last."""
    said = []
    for group in groups:
        counts = [int(count) for count in _moved_totals(_first_with_topology(group), "pruned").values()]
        said.append(f"{group.name} {counts[0]:,} → {counts[-1]:,}" if counts[0] != counts[-1]
                    else f"{group.name} {counts[0]:,}")  # fmt: skip
    return (
        f"As many weights are regrown as were pruned, in the first epoch with updates → in the last: {'; '.join(said)}."
    )


def weights_move(group: Group) -> bool:
    """Whether any update has pruned or regrown a weight in the group's first sparse run."""
    return any(row.get("pruned") or row.get("regrown") for row in _first_with_topology(group).topology)


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


def _thousands(value: float, _: object) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"
