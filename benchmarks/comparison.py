"""The comparison of methods, from runs of `sparse-rnn-train`: a record as JSON, a picture and a table.

    python -m benchmarks.comparison FOLDER --title "2×200 LSTM, 18 epochs"    # of folders METHOD.SEED, or of a sweep
    python -m benchmarks.comparison                                           # of the runs recorded

Finished runs are added to the record, `benchmarks/results/comparison.json`, one row for each method and seed; a run of
the same method and seed replaces the older one. Picture and table are made from the record alone, without the folders
of the runs. A record holds one comparison: methods in one setting. Another setting gets a record of its own: `--json`.
The picture is `docs/comparison.svg`, that of another record stands beside it, and `--picture` says otherwise; the table
is printed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.report.groups import settings_of
from lightning_sparse_rnn.report.significance import paired_difference
from lightning_sparse_rnn.runs.folder import RESULTS
from lightning_sparse_rnn.runs.reading import Run, find_runs, read_run
from lightning_sparse_rnn.utilities.whole_files import write_json

__all__ = ["Record", "draw", "merged", "read_records", "recorded", "table"]

RECORDS = Path(__file__).parent / "results" / "comparison.json"
PICTURE = Path(__file__).parents[1] / "docs" / "comparison.svg"
REFERENCE = "selfish"
#: Networks without masks look different from sparse ones.
LOOKS = {"dense": ("#d95f0e", "s"), "small_dense": ("#3f8f4f", "D")}
SPARSE = ("#08306b", "o")
#: Perplexities above this multiple of the lowest mean stand at the picture's edge, so as not to press others together.
FAR = 1.35


@dataclass(frozen=True)
class Record:
    """What is kept of a finished run: perplexities, live weights at the end, and what the run was made with.

    ``initial_scale`` is ``None`` for a network without masks and for runs older than the option; ``machine`` is
    ``None`` if nobody has said it.
    """

    method: str
    seed: int
    test_ppl: float
    val_ppl: float
    live_weights: int
    initial_scale: str | None
    epochs: int
    torch: str | None
    date: str
    machine: str | None


def recorded(run: Run, machine: str | None) -> Record:
    """Return the record of a finished run, with the day on which it ended.

    Raises:
        ValueError: its config says no method or seed, or a perplexity is not finite.
    """
    method, seed, results = run.settings.get("chosen.method"), run.seed, run.results
    if method is None or not isinstance(seed, int) or results is None:
        raise ValueError(f"Expected a finished run of a method in conf/method with a seed, got {run.folder}.")
    if not all(math.isfinite(results[name]) for name in ("test_ppl", "val_ppl")):
        raise ValueError(f"Expected finite perplexities, got a run that has diverged: {run.folder}. Leave it out.")
    return Record(
        method=str(method),
        seed=seed,
        test_ppl=results["test_ppl"],
        val_ppl=results["val_ppl"],
        live_weights=results["live_weights"],
        initial_scale=None if "dense" in str(method) else run.settings.get("method.initial_scale"),
        epochs=results["epochs"],
        torch=results.get("versions", {}).get("torch"),
        date=datetime.date.fromtimestamp((run.folder / RESULTS).stat().st_mtime).isoformat(),
        machine=machine or results.get("machine"),
    )


def merged(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Return one record for each method and seed; a run that is recorded already keeps its machine and its day."""
    found = {(record.method, record.seed): record for record in old}
    for record in new:
        before = found.get((record.method, record.seed))
        if before is None or (before.test_ppl, before.val_ppl) != (record.test_ppl, record.val_ppl):
            found[record.method, record.seed] = record
    return [found[key] for key in sorted(found)]


def read_records(path: Path) -> tuple[str, list[Record]]:
    """Return the comparison's title and its records; nothing if there is no file."""
    if not path.exists():
        return "", []
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["title"], [Record(**row) for row in content["runs"]]


def draw(title: str, records: Sequence[Record]) -> Figure:
    """Draw a row for each method, best first: a mark for each seed and a bar at the mean.

    Lines go up and down from the means of the networks without masks. What lies far beyond the others is an arrow at
    the edge; its mean stands beside it as that of every method does.
    """
    methods = _by_method(records)
    means = {method: statistics.fmean(values.values()) for method, values in methods.items()}
    edge = FAR * min(means.values())
    near = [value for values in methods.values() for value in values.values() if value <= edge]
    beyond = any(value > edge for values in methods.values() for value in values.values())
    figure = Figure(figsize=(7.0, 1.1 + 0.3 * len(methods)), layout="constrained")
    axes = figure.subplots()
    margin = 0.05 * (max(near) - min(near)) or 1.0
    right = max(near) + (3 if beyond else 1) * margin
    axes.set_xlim(min(near) - margin, right)
    for row, (method, values) in enumerate(methods.items()):
        color, marker = LOOKS.get(method, SPARSE)
        mean = means[method]
        if method in LOOKS:
            axes.axvline(mean, color=color, linewidth=1, linestyle="--", alpha=0.7, zorder=0)
        seen = [value for value in values.values() if value <= edge]
        axes.plot(seen, [row] * len(seen), marker, color=color, markersize=5, alpha=0.65)
        if len(seen) < len(values):
            axes.plot([right - margin], [row], ">", color=color, markersize=6)
        if mean <= edge:
            axes.plot([mean], [row], "|", color="black", markersize=14, markeredgewidth=1.6)
        axes.annotate(f"{mean:.1f}", (1.0, row), xycoords=("axes fraction", "data"), xytext=(5, 0), va="center",
                      textcoords="offset points", annotation_clip=False, fontsize=9)  # fmt: skip
    live = {record.method: record.live_weights for record in records}
    names = [f"{method.replace('_', ' ')}  ({live[method] / 1e6:.2f} M)" for method in methods]
    axes.set_yticks(range(len(methods)), names, fontsize=9)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel("test perplexity (lower is better); in brackets: live weights in millions", fontsize=9)
    axes.tick_params(axis="x", labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    marks = "marks: seeds; bar: mean; dashed: networks without masks"
    marks += "; arrow: beyond the scale" if beyond else ""
    figure.suptitle(f"{title}\n{marks}" if title else marks, x=0.01, ha="left", fontsize=9.5)
    return figure


def table(records: Sequence[Record]) -> str:
    """Return the comparison as Markdown, best first: means, deviations, and differences seed by seed."""
    methods = _by_method(records)
    reference = REFERENCE if REFERENCE in methods else next(iter(methods))
    lines = [
        "| method | seeds | test | validation | gap to dense | "
        f"minus {reference}, paired [95 % interval] | live weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, values in methods.items():
        own = [record for record in records if record.method == method]
        gap = ""
        if "dense" in methods and method != "dense":
            dense, mean = statistics.fmean(methods["dense"].values()), statistics.fmean(values.values())
            gap = f"{mean - dense:+.2f} ({100 * (mean / dense - 1):+.1f} %)"
        cells = [
            method,
            str(len(own)),
            _mean_and_deviation(values.values()),
            _mean_and_deviation([record.val_ppl for record in own]),
            gap,
            "" if method == reference else _difference(values, methods[reference]),
            f"{own[0].live_weights:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Add runs to the record, and make picture and table from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("folder", type=Path, nargs="?", help="a folder of runs' folders, whose finished runs are added")
    parser.add_argument("--json", type=Path, default=RECORDS, help="the record")
    parser.add_argument("--picture", type=Path, help="where the picture goes")
    parser.add_argument("--title", help="what was compared; stays in the record")
    parser.add_argument("--machine", help="what the runs in FOLDER were made on")
    given = parser.parse_args(arguments)
    if given.folder is not None and not given.folder.is_dir():
        parser.error(f"Expected a folder of runs, got {given.folder}, which is none.")
    title, records = read_records(given.json)
    title = title if given.title is None else given.title
    try:
        if given.folder is not None:
            records = merged(records, _new_records(given.folder, given.machine))
        if not records:
            raise ValueError(f"Expected finished runs in FOLDER or a record of some in {given.json}, got none.")
        _check_one_setting(records)
    except ValueError as error:
        parser.error(str(error))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.json, {"title": title, "runs": [asdict(record) for record in records]})
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date"))
    picture = given.picture or (PICTURE if given.json == RECORDS else given.json.with_suffix(".svg"))
    picture.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "comparison"}):  # the same record gives the same file
        draw(title, records).savefig(picture, metadata=nothing)
    print(table(records))


def _new_records(folder: Path, machine: str | None) -> list[Record]:
    """Return the records of the finished runs in a folder.

    Raises:
        ValueError: there are none, or two differ in more than method and seed, or in neither.
    """
    runs = [run for found in find_runs([folder])[0] if (run := read_run(found)).results is not None]
    if not runs:
        raise ValueError(f"Expected finished runs in {folder}, got none.")
    first: dict[tuple[Any, ...], Run] = {}  # the first run of a method and seed, of a method, and of all
    for run in runs:
        method = run.settings.get("chosen.method")
        twin = first.setdefault((method, run.seed), run)
        if twin is not run:
            raise ValueError(
                f"Expected one run of each method and seed, got {twin.folder} and {run.folder}. Give a folder of runs "
                "that differ in these alone."
            )
        for other, of_all in ((first.setdefault((method,), run), False), (first.setdefault((), run), True)):
            if different := _differing(other, run, of_all_methods=of_all):
                raise ValueError(
                    f"Expected runs that differ in method and seed alone, got {other.folder} and {run.folder}, which "
                    f"differ in {', '.join(different[:5])}. Another setting gets another record: --json."
                )
    return [recorded(run, machine) for run in runs]


def _differing(one: Run, other: Run, *, of_all_methods: bool) -> list[str]:
    """Return the settings that two runs both have, with different values; those of methods only on demand."""
    before, after = settings_of(one), settings_of(other)
    names = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    return [name for name in names if not (of_all_methods and name.startswith(("method.", "chosen.method")))]


def _check_one_setting(records: Iterable[Record]) -> None:
    """Make sure that records may be of one setting.

    Raises:
        ValueError: they are not.
    """
    records = list(records)
    if len(lengths := sorted({record.epochs for record in records})) > 1:
        raise ValueError(
            f"Expected runs of one length, got {lengths} epochs. Another length gets another record: --json."
        )
    for method in _by_method(records):
        live = sorted({record.live_weights for record in records if record.method == method})
        if len(live) > 1:
            raise ValueError(
                f"Expected runs of {method} with equally many live weights, got {live}. Another setting gets another "
                "record: --json."
            )


def _by_method(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return each method's test perplexities by seed, the lowest mean first."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        found.setdefault(record.method, {})[str(record.seed)] = record.test_ppl
    return dict(sorted(found.items(), key=lambda item: (statistics.fmean(item[1].values()), item[0])))


def _mean_and_deviation(values: Iterable[float]) -> str:
    found = list(values)
    mean = f"{statistics.fmean(found):.2f}"
    return mean if len(found) == 1 else f"{mean} ± {statistics.stdev(found):.2f}"


def _difference(values: Mapping[str, float], reference: Mapping[str, float]) -> str:
    found = paired_difference(values, reference)
    if found is None:
        return ""
    seeds = f"{found.pairs} seed" + "s" * (found.pairs > 1)
    if found.interval is None:
        return f"{found.mean:+.2f} ({seeds})"
    return f"{found.mean:+.2f} [{found.interval[0]:+.2f}, {found.interval[1]:+.2f}] ({seeds})"


if __name__ == "__main__":
    with interruptible():
        main()
