"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from lightning_sparse_rnn.runs.mask_picture import MaskView, highest, plot_masks

__all__ = ["ONE_SIZE", "STYLES", "count_epochs", "draw_run", "log_perplexity", "plot_densities"]

#: Line styles for the curves of one plot, told apart by lightness and dash, in black and white too.
STYLES: list[dict[str, Any]] = [
    {"color": "#08306b", "linestyle": "-"},
    {"color": "#d95f0e", "linestyle": "--"},
    {"color": "#3f8f4f", "linestyle": "-."},
    {"color": "#b06fc0", "linestyle": ":"},
    {"color": "#000000", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#8c8c8c", "linestyle": (0, (1, 1))},
]
#: Settings of matplotlib for figures whose texts all have one size, in points, and are no formulas: a folder's name may
#: have dollar signs in it.
ONE_SIZE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    "text.parse_math": False,
}
_WIDTH = 7.2


def draw_run(
    rows: Sequence[Mapping[str, Any]],
    topology: Iterable[Mapping[str, Any]],
    *,
    about: str = "",
    results: Mapping[str, Any] | None = None,
    masks: tuple[str, Sequence[MaskView]] | None = None,
) -> Figure:
    """Draw perplexity over epochs, the gates' densities below it, and at the bottom the masks of a recurrent matrix.

    Args:
        rows: a run's epochs, as in ``metrics.csv``.
        topology: its topology, as in ``topology.csv``; empty for a run without sparsity.
        about: lines that say what run it is.
        results: what is known of its results, as in ``results.json``: the test perplexity is marked, and a line drawn
            at that of a unigram model.
        masks: the matrix's name, and views of its masks.
    """
    densities: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in topology:
        gates = densities.setdefault(row["tensor"], {})
        gates.setdefault(row["gate"], []).append((row["epoch"], row["density"]))
    densities = {tensor: gates for tensor, gates in densities.items() if len(gates) > 1}
    heights = [3.2 + 0.17 * len(about.splitlines())]
    heights += [0.5 + 1.5 * ((len(densities) + 1) // 2)] if densities else []
    heights += [3.4] if masks else []
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
    _plot_perplexity(next(parts), rows, results or {}, about)
    if densities:
        plot_densities(next(parts), densities)
    if masks:
        _plot_masks(next(parts), *masks)
    return figure


def _plot_perplexity(
    figure: SubFigure, rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any], about: str
) -> None:
    axes: Axes = figure.subplots()
    if about:
        figure.suptitle(about, x=0.01, ha="left")
    for index, (name, label) in enumerate((("train_ppl", "training"), ("val_ppl", "validation"))):
        points = [(row["epoch"] + 1, row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3, **STYLES[index])
    began = next((row["epoch"] for row in rows if row["averaging"]), None)
    if began is not None:
        axes.axvline(began, color="0.4", linewidth=1)
        axes.annotate("averaging begins", (began, 0.97), xycoords=("data", "axes fraction"), xytext=(-3, 0),
                      textcoords="offset points", rotation=90, va="top", ha="right", color="0.3",
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
    unigram, test = results.get("unigram_ppl"), results.get("test_ppl")
    if unigram is not None:
        axes.axhline(unigram, label=f"unigram model, test: {unigram:.1f}", linewidth=1.2, **STYLES[5])
    if test is not None:
        axes.plot([len(rows)], [test], "D", label=f"test: {test:.2f}", color="black", markersize=5)
    axes.set(xlabel="epochs trained", ylabel="perplexity (log scale)")
    log_perplexity(axes)
    count_epochs(axes)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)


def log_perplexity(axes: Axes, limits: tuple[float, float] | None = None) -> None:
    """Give the axes a logarithmic scale with a few round numbers, between ``limits`` if there are any."""
    axes.set_yscale("log")
    if limits is not None:
        axes.set_ylim(*limits)
    low, high = axes.get_ylim()
    steps = (1, 1.5, 2, 3, 5, 7) if high < 6 * low else (1, 2, 5) if high < 100 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e5 else f"{value:.0e}")
    axes.tick_params(axis="y", which="minor", length=0)


def count_epochs(axes: Axes, most: int = 10) -> None:
    """Mark whole numbers alone on the axis of epochs, also where there is only one; ``most`` says how many at most."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def plot_densities(
    figure: Figure | SubFigure,
    densities: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
    title: str = "Density of each gate after each topology update",
) -> None:
    """Draw the gates' densities over epochs: points by gate by tensor, a panel a tensor."""
    grid = figure.subplots((len(densities) + 1) // 2, min(2, len(densities)), sharex=True, sharey=True, squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", **_under_the_top(figure))
    for axes in grid.flat[len(densities) :]:
        axes.set_visible(False)
    for axes, (tensor, gates) in zip(grid.flat, densities.items(), strict=False):
        for index, (gate, points) in enumerate(gates.items()):
            marker = "o" if len(points) == 1 else None  # one update is a point, and no line
            axes.plot(*zip(*points, strict=True), label=gate, marker=marker, **STYLES[index % len(STYLES)])
        count_epochs(axes)
        axes.set_title(tensor)
        axes.grid(alpha=0.25)
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    # Only a layout engine can make room outside.
    place: Any = "lower center" if figure.get_layout_engine() is None else "outside lower center"
    figure.legend(lines.values(), lines, loc=place, ncols=4, frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("epochs trained")
    for axes in grid[:, 0]:
        axes.set_ylabel("density")


def _under_the_top(figure: Figure | SubFigure) -> dict[str, Any]:
    """Return where a title stands in a figure that is laid out by hand; a layout engine makes room if not told."""
    if isinstance(figure, Figure) and figure.get_layout_engine() is None:
        return {"y": 1 - 0.05 / figure.get_figheight(), "va": "top"}
    return {}


def _plot_masks(figure: SubFigure, name: str, shown: Sequence[MaskView]) -> None:
    panels = list(figure.subplots(1, len(shown), squeeze=False)[0])
    image = plot_masks(panels, shown, highest(shown))
    (rows, columns), cells = shown[0].shape, shown[0].cells.shape
    figure.colorbar(image, ax=panels, label="share of live weights in a cell", fraction=0.04, pad=0.02)
    size = f"cells of about {rows / cells[0]:.0f} × {columns / cells[1]:.0f} weights"
    figure.suptitle(f"Where the live weights of {name} are ({rows:,} × {columns:,}, {size})", x=0.01, ha="left")
