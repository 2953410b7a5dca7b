"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from lightning_sparse_rnn.runs.mask_picture import plot_masks, shown_tensor

__all__ = ["STYLES", "draw_run", "plot_densities"]

#: Line styles for the curves of one plot, told apart by lightness and dash, in black and white too.
STYLES: list[dict[str, Any]] = [
    {"color": "#08306b", "linestyle": "-"},
    {"color": "#d95f0e", "linestyle": "--"},
    {"color": "#3f8f4f", "linestyle": "-."},
    {"color": "#b06fc0", "linestyle": ":"},
    {"color": "#000000", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#8c8c8c", "linestyle": (0, (1, 1))},
]


def draw_run(
    rows: Sequence[Mapping[str, Any]],
    topology: Sequence[Mapping[str, Any]],
    masks: Sequence[tuple[str, Mapping[str, Any]]] = (),
    *,
    about: str = "",
    unigram: float | None = None,
    test: float | None = None,
) -> Figure:
    """Draw perplexity over epochs, the gates' densities below it, and at the bottom the masks of a recurrent matrix.

    Args:
        rows: a run's epochs, as in ``metrics.csv``.
        topology: its topology, as in ``topology.csv``; empty for a run without sparsity.
        masks: topologies to show, each with words that say which: masks by name of their tensor.
        about: what run it is, in one line.
        unigram: test perplexity of a unigram model.
        test: the run's test perplexity.
    """
    densities: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in topology:
        gates = densities.setdefault(row["tensor"], {})
        gates.setdefault(row["gate"], []).append((row["epoch"], row["density"]))
    densities = {tensor: gates for tensor, gates in densities.items() if len(gates) > 1}
    shown = shown_tensor(topology) if masks else None
    heights = [3.4]
    if densities:
        heights.append(2.2 * ((len(densities) + 1) // 2))
    if shown:
        heights.append(3.6)
    figure = Figure(figsize=(7.0, sum(heights) + 0.3 * bool(about)), layout="constrained")
    if about:
        figure.suptitle(about, fontsize=8, x=0.01, ha="left")
    parts = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat)
    _plot_perplexity(next(parts).subplots(), rows, unigram, test)
    if densities:
        plot_densities(next(parts), densities)
    if shown:
        tensor, gates_of_it = shown
        plot_masks(next(parts), tensor, gates_of_it, [(which, by_name[tensor]) for which, by_name in masks])
    return figure


def _plot_perplexity(axes: Axes, rows: Sequence[Mapping[str, Any]], unigram: float | None, test: float | None) -> None:
    for index, (name, label) in enumerate((("train_ppl", "training"), ("val_ppl", "validation"))):
        points = [(row["epoch"] + 1, row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3, **STYLES[index])
    began = next((row["epoch"] for row in rows if row["averaging"]), None)
    if began is not None:
        axes.axvline(began, color="0.4", linewidth=1)
        axes.annotate("averaging begins", (began, 0.03), xycoords=("data", "axes fraction"), rotation=90, va="bottom",
                      ha="right", color="0.3", fontsize=8)  # fmt: skip
    if unigram is not None:
        axes.axhline(
            unigram, label=f"test of an add-one unigram model: {unigram:.1f}", color="0.5", linestyle=(0, (1, 2))
        )
    if test is not None:
        axes.plot(len(rows), test, "*", color="#d95f0e", markersize=10, linestyle="", label=f"test: {test:.2f}")
    axes.set(xlabel="epochs trained", ylabel="perplexity (log scale)", yscale="log")
    axes.yaxis.set_minor_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Perplexity", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)


def plot_densities(
    figure: Figure | SubFigure,
    densities: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
    title: str = "Density of each gate after each topology update",
) -> None:
    """Draw the gates' densities over epochs: points by gate by tensor, a panel a tensor."""
    grid = figure.subplots((len(densities) + 1) // 2, min(2, len(densities)), sharex=True, sharey=True, squeeze=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    for axes in grid.flat[len(densities) :]:
        axes.set_visible(False)
    for axes, (tensor, gates) in zip(grid.flat, densities.items(), strict=False):
        for index, (gate, points) in enumerate(gates.items()):
            axes.plot(*zip(*points, strict=True), label=gate, **STYLES[index % len(STYLES)])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(tensor, fontsize=8)
        axes.grid(alpha=0.25)
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("epochs trained", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("density", fontsize=8)
