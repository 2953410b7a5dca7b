"""A table of the report, and how it becomes CSV, Markdown, and what the page shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

__all__ = ["Table", "as_csv", "as_markdown", "as_text", "in_parts", "shown", "texts"]

_MOST_COLUMNS = 10  # of a table on the page


@dataclass
class Table:
    """A table of texts and numbers.

    Attributes:
        name: the name of its file, without ``.csv``.
        title: what it shows.
        text: how to read it.
        columns: the columns' heads.
        rows: lists of values, as long as ``columns``; ``None`` where there is no value.
        best: the index of the row that is to stand out, if there is one.
        folded: whether the page shows it only to those who ask, since a figure has the same.
    """

    name: str
    title: str
    text: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    best: int | None = None
    folded: bool = False


def shown(table: Table) -> Table:
    """Return the table without the columns that have no value in any row."""
    kept = [i for i in range(len(table.columns)) if i == 0 or any(row[i] not in (None, "") for row in table.rows)]
    return _columns(table, kept)


def in_parts(table: Table) -> list[Table]:
    """Return tables of at most ten columns each, which together have those of a wide one; each has its first column.

    Parts of a wide table leave out rows in which they have no value.
    """
    others = len(table.columns) - 1
    parts = max(1, -(-others // (_MOST_COLUMNS - 1)))
    ends = [part * others // parts for part in range(parts + 1)]
    if parts == 1:
        return [table]
    cut = [_columns(table, [0, *range(start + 1, end + 1)]) for start, end in pairwise(ends)]
    return [
        replace(part, rows=[row for row in part.rows if any(value not in (None, "") for value in row[1:])], best=None)
        for part in cut
    ]


def as_csv(table: Table) -> str:
    """Return the table as CSV, with the columns' heads in the first line."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([["" if value is None else value for value in row] for row in table.rows])
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """Return the table with its title and text as Markdown; the best row is bold."""
    lines = [f"## {table.title}", "", table.text, "", _line(table.columns), _line(["---"] * len(table.columns))]
    for index, cells in enumerate(texts(table)):
        lines.append(_line([f"**{cell}**" if cell else cell for cell in cells] if index == table.best else cells))
    return "\n".join(lines) + "\n"


def texts(table: Table) -> list[list[str]]:
    """Return the rows as they are shown: fractions in one column have the same number of digits."""
    columns = []
    for column in zip(*table.rows, strict=True):
        digits = {str(value).partition(".")[2] for value in column if isinstance(value, float)}
        even = all(part.isdigit() for part in digits)
        most = max((len(part) for part in digits), default=0)
        columns.append(
            [f"{value:.{most}f}" if even and isinstance(value, float) else as_text(value) for value in column]
        )
    return [list(row) for row in zip(*columns, strict=True)]


def as_text(value: Any) -> str:
    """Return a value as it is shown: whole numbers with commas, nothing for ``None``."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _columns(table: Table, kept: list[int]) -> Table:
    columns = [table.columns[i] for i in kept]
    return replace(table, columns=columns, rows=[[row[i] for i in kept] for row in table.rows])
