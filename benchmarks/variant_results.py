"""What runs of variants reached: records of them as JSON, and a table in which each is compared with another."""

from __future__ import annotations

import csv
import datetime
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_sparse_rnn.runs.folder import METRICS, RESULTS
from lightning_sparse_rnn.utilities.processor import processor
from lightning_sparse_rnn.utilities.whole_files import write_json

__all__ = ["Record", "Variant", "check_lengths", "merged", "read_records", "recorded", "table", "write_records"]

_HEAD = (
    "| name | what | validation perplexity | beside | difference, seed by seed | live weights |"
    " epochs on the plateau |\n" + "|---" * 7 + "|"
)


@dataclass(frozen=True)
class Variant:
    """A choice to be tried.

    Attributes:
        what: it in words, as the table has it.
        overrides: what it changes of the setting.
        beside: the name of the variant that it is compared with, seed by seed.
    """

    what: str
    overrides: tuple[str, ...] = ()
    beside: str = "base"


@dataclass(frozen=True)
class Record:
    """What is kept of a finished run.

    Attributes:
        variant: its name.
        seed: its seed.
        set: what all runs beside it had besides the variant.
        val_ppl: perplexity of the validation text.
        live_weights: how many weights were live at its end.
        epochs: how many it had.
        left_plateau: after how many epochs training was better than context-free frequencies are; None: never.
        machine: what it was computed on.
        torch: the version.
        date: the day on which it ended.
    """

    variant: str
    seed: int
    set: list[str]
    val_ppl: float
    live_weights: int
    epochs: int
    left_plateau: int | None
    machine: str
    torch: str
    date: str

    @property
    def key(self) -> tuple[tuple[str, ...], str, int]:
        """Of two records with one key the later one counts."""
        return tuple(sorted(self.set)), self.variant, self.seed


def recorded(folder: Path, overrides: list[str], plateau: float) -> Record:
    """The record of the finished run in a folder `VARIANT.SEED`."""
    path = folder / RESULTS
    results = json.loads(path.read_text(encoding="utf-8"))
    variant, _, seed = folder.name.rpartition(".")
    return Record(
        variant=variant,
        seed=int(seed),
        set=overrides,
        val_ppl=results["val_ppl"],
        live_weights=results["live_weights"],
        epochs=results["epochs"],
        left_plateau=_left_plateau(folder / METRICS, plateau),
        machine=results.get("machine") or processor(),
        torch=results["versions"]["torch"],
        date=datetime.date.fromtimestamp(path.stat().st_mtime).isoformat(),
    )


def read_records(path: Path) -> list[Record]:
    """The records in a file, none if there is no file."""
    if not path.exists():
        return []
    return [Record(**run) for run in json.loads(path.read_text(encoding="utf-8"))["runs"]]


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write them down, in an order of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"runs": [asdict(record) for record in sorted(records, key=lambda record: record.key)]})


def merged(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Old and new records; a new one replaces an old one of its key unless it is of the same run.

    A run that is recorded stays as it is, with the machine and the day on which it was made.
    """
    found = {record.key: record for record in old}
    for record in new:
        if record.key not in found or found[record.key].val_ppl != record.val_ppl:
            found[record.key] = record
    return list(found.values())


def check_lengths(records: Iterable[Record]) -> None:
    """Make sure that what is compared was trained equally long.

    Raises:
        ValueError: runs with the same further overrides have different numbers of epochs.
    """
    lengths: dict[tuple[str, ...], set[int]] = {}
    for record in records:
        lengths.setdefault(record.key[0], set()).add(record.epochs)
    for overrides, found in lengths.items():
        if len(found) > 1:
            given = f"with --set {' '.join(overrides)}" if overrides else "without --set"
            raise ValueError(
                f"Expected runs of one length {given}, got {sorted(found)} epochs. Say with --set what the runs were "
                "made with; what is to be compared otherwise is recorded elsewhere by --json."
            )


def table(variants: Mapping[str, Variant], records: Iterable[Record]) -> str:
    """One table of validation perplexities for each set of further overrides, in the order of the variants."""
    by_key = {record.key: record for record in records}
    parts = []
    for overrides in sorted({record.key[0] for record in by_key.values()}):
        of_set = {(variant, seed): record for (set_, variant, seed), record in by_key.items() if set_ == overrides}
        rows = [row for name in variants if (row := _row(name, variants, of_set))]
        head = [f"With {' '.join(overrides)}:", ""] if overrides else []
        parts.append("\n".join([*head, _HEAD, *rows]))
    return "\n\n".join(parts)


def _row(name: str, variants: Mapping[str, Variant], records: Mapping[tuple[str, int], Record]) -> str:
    seeds = sorted(seed for variant, seed in records if variant == name)
    if not seeds:
        return ""
    what, own = variants[name].what, [records[name, seed] for seed in seeds]
    beside = variants[name].beside if variants[name].beside != name else ""
    found = [record.val_ppl for record in own]
    mean = f"{statistics.mean(found):.2f}" + (f" ± {statistics.stdev(found):.2f} ({len(own)})" if len(own) > 1 else "")
    pairs = [(record, records[beside, record.seed]) for record in own if (beside, record.seed) in records]
    steps = ", ".join(f"{one.val_ppl - other.val_ppl:+.2f}" for one, other in pairs)
    live = ", ".join(f"{live:,}" for live in sorted({record.live_weights for record in own}))
    left = ", ".join("none" if record.left_plateau is None else str(record.left_plateau) for record in own)
    against = f"`{beside}`" if beside else ""
    return f"| `{name}` | {what} | {mean} | {against} | {steps} | {live} | {left} |"


def _left_plateau(metrics: Path, plateau: float) -> int | None:
    """Plain SGD takes a while to the first epoch below the plateau."""
    with metrics.open(newline="", encoding="utf-8") as file:
        return next((int(row["epoch"]) for row in csv.DictReader(file) if float(row["train_ppl"]) < plateau), None)
