"""The report's page: what it is made of, and how that becomes HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_sparse_rnn.report.figure_style import DARK, Drawing
from lightning_sparse_rnn.report.table import Table, in_parts, shown, texts

__all__ = ["Figures", "Report", "Section", "as_html"]

_NARROW = 6  # columns of a table that half of a line is wide enough for


@dataclass
class Figures:
    """Figures that belong together, with a title and a text on how to read them."""

    title: str
    text: str
    drawings: list[Drawing]

    @property
    def narrow(self) -> bool:
        """Whether half of a line is wide enough for it."""
        return [drawing.kind for drawing in self.drawings] == ["wide"]


@dataclass
class Section:
    """A part of the page. ``anchor`` names it in the page's links."""

    anchor: str
    title: str
    blocks: list[Table | Figures] = field(default_factory=list)

    @property
    def lines(self) -> list[list[Table | Figures]]:
        """The blocks, two narrow ones that follow each other on one line, and all others each on its own."""
        lines: list[list[Table | Figures]] = []
        for block in self.blocks:
            if lines and len(lines[-1]) == 1 and _is_narrow(lines[-1][0]) and _is_narrow(block):
                lines[-1].append(block)
            else:
                lines.append([block])
        return lines


@dataclass
class Report:
    """All that the page says.

    Attributes:
        summary: a few lines that sum it up.
        problems: sentences on what is wrong with the runs as a whole, or with the paths that were given.
        sections: the parts of the page, without empty ones.
        left_out: sentences that say what is missing from the page, and why.
    """

    summary: list[str]
    problems: list[str]
    sections: list[Section]
    left_out: list[str]

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order of the page."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]


def as_html(report: Report, made: str, version: str) -> str:
    """Return the page as HTML that loads no other file.

    Args:
        report: what the page says.
        made: the date and time for its footer.
        version: this package's version, also for its footer.
    """
    environment = Environment(
        loader=PackageLoader("lightning_sparse_rnn.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(texts=texts, wrap=_may_break, shown=shown, parts=in_parts, numeric=_is_numeric)
    environment.tests.update(number_like=_is_number, narrow=_is_narrow)
    return environment.get_template("page.html").render(
        report=report, made=made, version=version, Markup=Markup, colors=DARK
    )


def _is_narrow(block: Table | Figures) -> bool:
    if isinstance(block, Figures):
        return block.narrow
    return len(shown(block).columns) <= _NARROW and not block.folded


def _is_numeric(table: Table, column: int) -> bool:
    """Whether all of a column's values are numbers; the first one has names."""
    return column > 0 and all(_is_number(row[column]) for row in texts(table) if row[column])


def _is_number(value: str) -> bool:
    return value.lstrip("+-")[:1].isdigit() and set(value) <= set("0123456789.,±→e-+ (%)")


def _may_break(text: Any) -> Markup:
    """Return escaped text in which a line may break after a dot, comma, slash, underscore or equals sign."""
    escaped = str(Markup.escape(str(text)))
    for mark in (".", ",", "/", "_", "="):
        escaped = escaped.replace(mark, f"{mark}<wbr>")
    return Markup(escaped)
