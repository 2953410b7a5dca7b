"""Draws the pictures of `docs/method.md` from a run: `python docs/site/pictures.py runs/default`."""

import csv
import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_sparse_rnn.runs.folder import kept_masks
from lightning_sparse_rnn.runs.picture import ONE_SIZE, plot_densities
from lightning_sparse_rnn.sparsity.mask_files import load_masks

FOLDER = Path(__file__).parents[1] / "pictures"
HIDDEN = "network.layers.weight_hh_l0"


def draw_masks(run: Path) -> Figure:
    """The hidden matrix of the first layer before and after, a dot for each live weight, its gates marked."""
    files = [path for _, path in kept_masks(run)]
    rows = [row for row in topology(run) if row["tensor"] == HIDDEN and row["update"] == "0"]
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    for axes, file, title in zip(
        figure.subplots(1, 2, sharey=True), (files[0], files[-1]), ("before", "after"), strict=True
    ):
        mask = load_masks(file)[HIDDEN]
        height = len(mask) // len(rows)
        axes.imshow(mask, cmap="Greys", aspect="equal", interpolation="nearest")
        for index, row in enumerate(rows):
            block = mask[index * height : (index + 1) * height]
            axes.axhline(index * height - 0.5, color="#d95f0e", linewidth=1)
            axes.text(mask.shape[1] + 3, (index + 0.5) * height, f"{row['gate']}\n{block.mean():.2f}", va="center")
        axes.set_title(f"{title}: {int(mask.sum()):,} live weights", loc="left")
        axes.set(xticks=[], yticks=[])
    return figure


def draw_gates(run: Path) -> Figure:
    """The density of each gate after each update."""
    densities: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in topology(run):
        gates = densities.setdefault(row["tensor"], {})
        gates.setdefault(row["gate"], []).append((int(row["epoch"]), float(row["density"])))
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    plot_densities(figure, {tensor: gates for tensor, gates in densities.items() if len(gates) > 1})
    return figure


def topology(run: Path) -> list[dict[str, str]]:
    with (run / "topology.csv").open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with rc_context(ONE_SIZE):
        for name, draw in (("masks", draw_masks), ("gates", draw_gates)):
            draw(Path(sys.argv[1])).savefig(FOLDER / f"{name}.png", dpi=110)
