"""Results as a Markdown table, in the terminal and in the documentation."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["lines", "render_into"]

BEGIN, END = "<!-- made by `python -m benchmarks --render` -->", "<!-- end -->"
_KINDS = {"figures", "runs_an_hour"}
_HEAD = ("what", "time", "ratio", "least time", "times that", "more")


def render_into(document: Path, results: Sequence[Path]) -> None:
    """Replace what stands between the marks in ``document`` by the tables of results, file by file.

    Results of another kind are passed over.

    Raises:
        ValueError: the document has no marks.
    """
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"Expected {BEGIN} and {END} in {document}.")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in results]
    tables = [line for result in found if result.keys() & _KINDS for line in [*lines(result), ""]]
    document.write_text(f"{before}{BEGIN}\n\n" + "\n".join(tables) + f"\n{END}{after}", encoding="utf-8")


def lines(result: Mapping[str, Any]) -> list[str]:
    """The lines of one result: where it comes from, and a table a benchmark."""
    machine = result["machine"]
    hardware = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} thread(s)"
    where = f"`{result['command']}`, {result['date']}, {machine['system']}, " + ", ".join(
        f"{name} {version}" for name, version in result["versions"].items()
    )
    if "runs_an_hour" in result:
        rates = result["runs_an_hour"]
        first = next(iter(rates.values()))
        rows = [(processes, f"{rate:.1f}", f"{rate / first:.2f}") for processes, rate in rates.items()]
        table = _table(("processes", "runs an hour", "ratio"), rows)
        return [f"## Several runs at once: {hardware}", "", f"{where}.", "", *table]
    size, floors = result["size"], result["floors"]
    found = [
        f"## {hardware}",
        "",
        f"{where}. {size['weights']:,} weights (vocabulary {size['vocabulary']:,}, {size['layers']}×{size['width']}), "
        f"batches of {size['columns']} × {size['steps']} tokens, medians of {result['repeats']}. Measured in the same "
        f"run: {floors['bytes_a_second'] / 1e9:.1f} GB/s moved, {floors['products_a_second'] / 1e9:,.1f} G products/s.",
    ]
    for benchmark, figures in itertools.groupby(result["figures"], key=lambda figure: figure["benchmark"]):
        rows = [_row(figure) for figure in figures]
        found += ["", f"### {benchmark.capitalize()}", "", *_table(_HEAD, rows)]
    return found


def _row(figure: Mapping[str, Any]) -> tuple[str, ...]:
    ratio, floor = figure["ratio"], figure["floor"]
    return (
        figure["what"],
        _time(figure["seconds"]),
        "" if ratio is None else f"{ratio:.3f}",
        "" if floor is None else f"{_time(floor)} ({figure['floor_is']})",
        "" if not floor else f"{figure['seconds'] / floor:.1f}",
        ", ".join(_more(name, value) for name, value in figure["more"].items()),
    )


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1.0:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


_MORE: dict[str, Callable[[float], str]] = {
    "bytes": lambda value: f"{value / 1e6:,.1f} MB",
    "largest_bytes": lambda value: f"the largest {value / 1e6:,.1f} MB",
    "files": lambda value: f"{value} files",
    "read_seconds": lambda value: f"read in {_time(value)}",
    "bytes_to_dense": lambda value: f"{value:.3f} of dense",
    "handing_over_seconds": lambda value: f"handed over in {_time(value)}",
    "waits_per_step": lambda value: f"{value:g} waits a step",
    "peak_bytes_above_held": lambda value: f"{value / 2**20:,.0f} MiB above what is held",
}


def _more(name: str, value: float) -> str:
    return _MORE[name](value) if name in _MORE else f"{name} {value:g}"


def _table(head: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    used = [column for column in range(len(head)) if column == 0 or any(row[column] for row in rows)]
    table = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells[column] for column in used) + " |" for cells in table]
