"""Reads the files that ``sparse-rnn-train`` leaves behind, of unfinished and damaged runs as well."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from lightning_sparse_rnn.runs.flat_config import flat
from lightning_sparse_rnn.runs.folder import CONFIG, METRICS, RESULTS, TOPOLOGY, kept_masks
from lightning_sparse_rnn.runs.old_configs import same_runs

__all__ = ["Row", "Run", "find_runs", "is_number", "read_run"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster, but not on every machine
Row = dict[str, Any]


# What makes perplexities of one text incomparable, with the values that are not worth saying.
_OF_THE_TEXT: dict[str, Any] = {
    "data.tokens": "words",
    "data.min_count": 1,
    "data.max_vocabulary": None,
    "data.shares": None,
    "trainer.limit_test_batches": None,
}


@dataclass
class Run:
    """A run's folder, as far as it could be read.

    Attributes:
        folder: its path.
        settings: its config, flattened: values by ``group.key``.
        metrics: a row for each epoch.
        topology: a row for each topology update, tensor and gate.
        results: the results of a finished run; ``None`` for any other.
        problems: phrases that say what could not be read.
    """

    folder: Path
    settings: dict[str, Any]
    metrics: list[Row] = field(default_factory=list)
    topology: list[Row] = field(default_factory=list)
    results: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def seed(self) -> Any:
        """The seed that the run was started with."""
        return self.settings.get("seed")

    @property
    def corpus(self) -> str:
        """The name of the text, and what else makes perplexities comparable: its tokens, and how much is tested."""
        source, lines = self.settings.get("data.source"), self.settings.get("data.train_lines")
        name = self.settings.get("data.root") if source == "folder" else source
        said = [str(name), *([f"first {lines} lines"] if lines else [])]
        for key, usual in _OF_THE_TEXT.items():
            value = self.settings.get(key, usual)
            if value != usual:
                said.append(f"{key.rpartition('.')[2]} {value}")
        return ", ".join(said)

    def gates(self) -> dict[str, dict[str, int]]:
        """The number of positions of each gate of each recurrent tensor, in row order."""
        found: dict[str, dict[str, int]] = {}
        for row in self.topology:
            if row["gate"] != "all":
                found.setdefault(str(row["tensor"]), {})[str(row["gate"])] = row["total"]
        return found

    def masks(self) -> list[tuple[int, Path]]:
        """The files of the topologies that were kept, each with the number of epochs trained, in order."""
        return kept_masks(self.folder)


def find_runs(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the folders of all runs at or below ``paths``, each once, and sentences on paths without any."""
    found: dict[Path, Path] = {}
    problems = []
    for path in paths:
        if not path.exists():
            problems.append(f"There is no {path}.")
            continue
        below = sorted(config.parent for config in path.rglob(CONFIG)) if path.is_dir() else []
        # A tracker may keep a config.yaml of its own within a run's folder.
        runs = set(below)
        below = [each for each in below if runs.isdisjoint(each.parents) or (each / METRICS).exists()]
        if not below:
            problems.append(
                f"There is no run in {path}: expected a folder that sparse-rnn-train has made, with a {CONFIG} and a "
                f"{METRICS}, or one with such folders in it."
            )
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    return list(found.values()), problems


def read_run(folder: Path) -> Run:
    """Read a run's folder. What is missing or damaged is left out and listed in the run's ``problems``."""
    run = Run(folder, {})
    try:
        config = yaml.load((folder / CONFIG).read_text(encoding="utf-8"), Loader=_LOADER)
        if not isinstance(config, Mapping):
            raise ValueError("it is empty or holds no settings")
        run.settings = dict(flat(same_runs(config)))
    except (OSError, ValueError, yaml.YAMLError) as error:
        run.problems.append(f"{CONFIG} cannot be read: {_first_line(error)}")
    run.metrics = _read_table(folder / METRICS, ("epoch",), (), run.problems)
    if (folder / TOPOLOGY).exists():
        numbers = ("epoch", "live", "total")
        run.topology = _read_table(folder / TOPOLOGY, numbers, ("tensor", "gate"), run.problems)
    results = folder / RESULTS
    if results.exists():
        try:
            found = json.loads(results.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not all(is_number(found.get(name)) for name in ("test_ppl", "val_ppl")):
                raise ValueError("it has no test_ppl and val_ppl")
            run.results = found
            if not math.isfinite(found["test_ppl"]):
                run.problems.append("its test perplexity is not finite")
        except (OSError, ValueError) as error:
            run.problems.append(f"{RESULTS} cannot be read: {_first_line(error)}")
    return run


def _read_table(path: Path, numbers: Sequence[str], names: Sequence[str], problems: list[str]) -> list[Row]:
    """Return the rows of a CSV file up to the first that is not complete.

    A row is complete if it has a value for every column, numbers in the columns ``numbers``, and a line end.
    """
    try:
        text = path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [name for name in (*numbers, *names) if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        lines = text.count("\n")
        rows: list[Row] = []
        for given in reader:
            row = {name: _value(value) for name, value in given.items() if isinstance(value, str)}
            whole = None not in given and len(row) == len(given) and reader.line_num <= lines
            if not whole or not all(is_number(row[name]) for name in numbers):
                problems.append(f"{path.name} is cut short in line {reader.line_num}: the rows before it count")
                break
            rows.append(row)
        return rows
    except FileNotFoundError:
        problems.append(f"there is no {path.name}")
    except (OSError, csv.Error, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {_first_line(error)}")
    return []


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number; ``True`` and ``False`` are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if math.isfinite(number) and number == int(number) and "." not in text else number


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
