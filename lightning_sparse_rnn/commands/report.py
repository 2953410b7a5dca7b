"""``sparse-rnn-report``: compares runs on one page and in tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from lightning_sparse_rnn.report.distances import Meter, measure
from lightning_sparse_rnn.report.groups import group_runs
from lightning_sparse_rnn.report.page import Report, as_html, build
from lightning_sparse_rnn.report.tables import as_csv, as_markdown
from lightning_sparse_rnn.runs.reading import find_runs, read_run
from lightning_sparse_rnn.utilities.whole_files import write_text

__all__ = ["main", "report"]

_FOLDER = "report"
_SECONDS = 8.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare runs of sparse-rnn-train: write a page, report.html, and beside it its tables as CSV and Markdown."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-report", description=main.__doc__)
    parser.add_argument(
        "path", type=Path, nargs="+", help="a run's folder, or a folder with runs in it, such as a sweep's"
    )
    parser.add_argument("--output", type=Path, help=f"folder of the report (default: {_FOLDER}/ in the first PATH)")
    parser.add_argument(
        "--distance-seconds",
        type=float,
        default=_SECONDS,
        help="time for distances of topologies, each of which takes seconds in large networks (default: %(default)g)",
    )
    given = parser.parse_args(arguments)
    folders, problems = find_runs(given.path)
    for problem in problems:
        print(f"sparse-rnn-report: {problem}", file=sys.stderr)
    if not folders:
        raise SystemExit("sparse-rnn-report: there is nothing to report on.")
    output = given.output or next(path for path in given.path if path.is_dir()) / _FOLDER
    try:
        output.mkdir(parents=True, exist_ok=True)
        made = report(folders, output, given.distance_seconds, problems)
    except OSError as error:
        raise SystemExit(f"sparse-rnn-report: cannot write to {output}: {error}. Choose --output FOLDER.") from None
    for said in made.left_out:
        print(f"Left out: {said}")
    print(f"{made.summary[0]}\nThe report is {output / 'report.html'}")
    if problems:
        raise SystemExit(1)


def report(folders: Sequence[Path], output: Path, seconds: float = _SECONDS, problems: Sequence[str] = ()) -> Report:
    """Write the report on the runs in ``folders`` to the folder ``output``, and return what it says.

    Args:
        folders: the runs' folders.
        output: an existing folder. It gets ``report.html``, ``report.md``, a CSV file for each table, and
            ``distances.json``, from which the next report takes distances of topologies that were measured before.
        seconds: how long to measure distances of topologies.
        problems: sentences that the report begins with, such as those on paths where there are no runs.
    """
    runs = [read_run(folder) for folder in folders]
    groups = group_runs([run for run in runs if run.settings])
    distances = measure(groups, Meter(seconds, output / "distances.json"))
    made = build(groups, [run for run in runs if not run.settings], distances, problems)
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    write_text(output / "report.html", as_html(made, now, version("lightning-sparse-rnn")))
    write_text(output / "report.md", _markdown(made))
    for table in made.tables:
        write_text(output / f"{table.name}.csv", as_csv(table))
    return made


def _markdown(made: Report) -> str:
    lines = ["# Sparse training: report", "", *made.summary, ""]
    for title, items in (("Please note", made.problems), ("Left out", made.left_out)):
        if items:
            lines += [f"{title}:", "", *(f"- {item}" for item in items), ""]
    return "\n".join(lines) + "\n" + "\n".join(as_markdown(table) for table in made.tables)


if __name__ == "__main__":
    main()
