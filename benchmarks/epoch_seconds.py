"""How long the epochs of a run took."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from statistics import median

from lightning_sparse_rnn.runs.folder import METRICS

__all__ = ["epoch_seconds", "usual"]


def epoch_seconds(run: Path) -> list[float]:
    """Seconds of each epoch of the run in a folder, validation and checkpoints included."""
    with (run / METRICS).open(newline="", encoding="utf-8") as file:
        ends = [0.0, *(float(row["seconds"]) for row in csv.DictReader(file))]
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def usual(epochs: list[float]) -> float:
    """The median, without the first epoch, which warms up, where there is another."""
    return median(epochs[1:] or epochs)
