"""``sparse-rnn-report``: compares runs on one page and in tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_sparse_rnn.commands.plain_errors import interruptible, told_plainly
from lightning_sparse_rnn.utilities.extras import extra

__all__ = ["main"]

_COMMAND = "sparse-rnn-report"
_FOLDER = "report"


@interruptible()
def main(arguments: Sequence[str] | None = None) -> None:
    """Compare runs of sparse-rnn-train: write a page, report.html, and beside it its tables as CSV and Markdown."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description=main.__doc__)
    parser.add_argument(
        "path", type=Path, nargs="+", help="a run's folder, or a folder with runs in it, such as a sweep's"
    )
    parser.add_argument("--output", type=Path, help=f"folder of the report (default: {_FOLDER}/ in the first PATH)")
    parser.add_argument(
        "--distance-seconds",
        type=float,
        help="time for distances of topologies, each of which takes seconds in large networks (default: 8)",
    )
    given = parser.parse_args(arguments)
    with told_plainly(_COMMAND), extra("report", _COMMAND):
        # Here, since it takes seconds, for which the help should not wait.
        from lightning_sparse_rnn.report.files import PAGE, SECONDS, write_report
        from lightning_sparse_rnn.runs.reading import find_runs
    seconds = SECONDS if given.distance_seconds is None else given.distance_seconds
    folders, problems = find_runs(given.path)
    for problem in problems:
        print(f"{_COMMAND}: {problem}", file=sys.stderr)
    if not folders:
        raise SystemExit(f"{_COMMAND}: there is nothing to report on.")
    output = given.output or next(path for path in given.path if path.is_dir()) / _FOLDER
    try:
        output.mkdir(parents=True, exist_ok=True)
        made = write_report(folders, output, seconds, problems)
    except OSError as error:
        raise SystemExit(f"{_COMMAND}: cannot write to {output}: {error}. Choose --output FOLDER.") from None
    for said in made.left_out:
        print(f"Left out: {said}")
    print(f"{made.summary[0]}\nThe report is {output / PAGE}")
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
