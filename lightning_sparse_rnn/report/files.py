"""A report as files: its page, and its tables as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lightning_sparse_rnn import __version__
from lightning_sparse_rnn.report.distances import Meter, measure
from lightning_sparse_rnn.report.groups import group_runs
from lightning_sparse_rnn.report.page import Report, as_html
from lightning_sparse_rnn.report.sections import build
from lightning_sparse_rnn.report.table import as_csv, as_markdown, shown
from lightning_sparse_rnn.report.tables import NAMES
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.utilities.whole_files import write_text

__all__ = ["PAGE", "SECONDS", "write_report"]

PAGE = "report.html"
#: How long distances of topologies are measured unless one says otherwise.
SECONDS = 8.0


def write_report(
    folders: Sequence[Path], output: Path, seconds: float = SECONDS, problems: Sequence[str] = ()
) -> Report:
    """Write the report on the runs in ``folders`` to the folder ``output``, and return what it says.

    Args:
        folders: the runs' folders.
        output: an existing folder. It gets ``report.html``, ``report.md``, a CSV file for each table, and
            ``distances.json``, from which the next report takes distances of topologies that were measured before. CSV
            files of an earlier report there, whose tables this one does not have, are removed.
        seconds: how long to measure distances of topologies.
        problems: sentences that the report begins with, such as those on paths where there are no runs.
    """
    runs = [read_run(folder) for folder in folders]
    groups = group_runs([run for run in runs if run.settings])
    distances = measure(groups, Meter(seconds, output / "distances.json"))
    made = build(groups, [run for run in runs if not run.settings], distances, problems)
    earlier = _tables_in(output)
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    write_text(output / PAGE, as_html(made, now, __version__))
    write_text(output / "report.md", _markdown(made))
    written = {output / f"{table.name}.csv": as_csv(table) for table in made.tables}
    for path, content in written.items():
        write_text(path, content)
    for path in earlier - written.keys():
        path.unlink(missing_ok=True)
    return made


def _tables_in(folder: Path) -> set[Path]:
    """Return the CSV files of the report in a folder; none if there is no report, and they are someone else's."""
    return {path for path in folder.glob("*.csv") if NAMES.fullmatch(path.stem)} if (folder / PAGE).exists() else set()


def _markdown(made: Report) -> str:
    lines = ["# Sparse training: report", "", *made.summary, ""]
    for title, items in (("Please note", made.problems), ("Left out", made.left_out)):
        if items:
            lines += [f"{title}:", "", *(f"- {item}" for item in items), ""]
    return "\n".join(lines) + "\n" + "\n".join(as_markdown(shown(table)) for table in made.tables)
