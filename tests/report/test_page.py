"""The page: needs nothing but itself, is well-formed, and says what the tables beside it say."""

import csv
import io
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_runs import make_run

from lightning_sparse_rnn.report.files import write_report
from lightning_sparse_rnn.report.page import Figures, Report
from lightning_sparse_rnn.report.table import shown as shown_columns
from lightning_sparse_rnn.report.table import texts
from lightning_sparse_rnn.report.tables import NAMES

VOID = {"meta", "link", "wbr", "br", "img", "hr"}


class Page(HTMLParser):
    """What the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.svgs: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._note(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "svg":
            self.svgs.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert value is not None
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.links.append(value)
            self.links += re.findall(r"url\((.*?)\)", value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open[-1:]):
            self.tables[-1][-1][-1] += data.strip("\n")
        if "svg" in self.open:
            self.svgs[-1] += data + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs / "a1", "selfish", 1, 90.0)
    make_run(runs / "a2", "selfish", 2, 93.0)
    make_run(runs / "b1", "static", 1, 99.0)
    make_run(runs / "b2", "static", 1, 120.0, sparsity=0.8)
    make_run(runs / "c1", "dense", 1, 80.0)
    make_run(runs / "d1", "<script>alert('1')</script> & $x_{$", 1, None)
    return runs


@pytest.fixture(scope="module")
def made(folder: Path) -> Report:
    (folder / "report").mkdir()
    return write_report(sorted(path for path in folder.iterdir() if path.name != "report"), folder / "report")


@pytest.fixture(scope="module")
def text(folder: Path, made: Report) -> str:
    return (folder / "report" / "report.html").read_text(encoding="utf-8")


def test_it_needs_nothing_but_itself(text: str) -> None:
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "")
    assert not {"script", "iframe", "object", "embed", "base", "img"} & page.tags
    assert "@import" not in text
    outside = [link for link in page.links if not link.startswith(("#", "data:,", "data:image/png;base64,"))]
    assert outside == []


def test_what_is_linked_is_there_and_names_are_unique(text: str) -> None:
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.links) > 20


def test_names_from_configs_are_text(text: str) -> None:
    assert "<script" not in text
    assert "&lt;script&gt;alert" in text
    assert any("</script> & $x_{$" in svg for svg in Page(text).svgs)  # and no formula


def test_every_figure_says_what_it_shows(text: str) -> None:
    page = Page(text)
    assert len(page.svgs) == text.count('role="img" aria-label="') > 8
    for svg in page.svgs:
        axes = ("perplexity", "sparsity", "epochs trained", "weights", "nothing in common", "at the start")
        assert any(label in svg for label in axes)
        assert len(svg.split()) > 5
    assert any("static, sparsity 0.8" in svg for svg in page.svgs)  # whole, though coordinates are rounded
    # Text is text, so that it can be searched and scales with its figure.
    assert any("averaged weights from here" in svg for svg in page.svgs)


def test_the_page_the_csv_files_and_the_markdown_have_the_same_tables(text: str, made: Report, folder: Path) -> None:
    page = Page(text)
    markdown = (folder / "report" / "report.md").read_text(encoding="utf-8")
    names = [table.name for table in made.tables]
    assert names == [
        "comparison", "differences", "budgets", "distances_from_start", "distances", "accounting", "settings", "runs",
    ]  # fmt: skip
    assert sorted(path.stem for path in (folder / "report").glob("*.csv")) == sorted(names)
    assert all(NAMES.fullmatch(name) for name in names)
    for table, shown in zip(made.tables, page.tables, strict=True):
        whole, table = table, shown_columns(table)
        assert [[cell.strip() for cell in row] for row in shown] == [table.columns, *texts(table)]
        content = (folder / "report" / f"{table.name}.csv").read_text(encoding="utf-8")
        read = list(csv.reader(io.StringIO(content, newline="")))
        assert read == [
            whole.columns,
            *([("" if value is None else str(value)) for value in row] for row in whole.rows),
        ]
        lines = [line.replace("**", "") for line in markdown.partition(f"## {table.title}\n")[2].splitlines()]
        first = lines.index(f"| {' | '.join(table.columns)} |")
        assert lines[first + 2 : first + 2 + len(table.rows)] == [f"| {' | '.join(row)} |" for row in texts(table)]


def test_tables_of_an_earlier_report_do_not_stay_and_files_of_others_do(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", "dense", data__source="pydoc")
    others = {tmp_path / "runs_2.csv", tmp_path / "mine.csv", tmp_path / "comparison_1.txt"}
    for path in (*others, tmp_path / "differences.csv"):  # the last before there is a report: it is someone's own
        path.touch()
    write_report([one, other], tmp_path)
    tables = {path.name for path in tmp_path.glob("*.csv")}
    assert {"comparison_1.csv", "comparison_2.csv", "budgets.csv", "differences.csv"} <= tables
    write_report([other], tmp_path)
    left = {path.name for path in tmp_path.glob("*.csv")} - {path.name for path in others}
    assert left == {"comparison.csv", "runs.csv"}
    assert all(path.exists() for path in others)


def test_it_says_what_it_has_and_what_it_has_not(made: Report, text: str) -> None:
    assert made.summary == [
        "6 runs, 5 finished; 5 methods or settings; runs that differ only in their seeds are one.",
        "Lowest test perplexity on ptb: 80.00, dense (1 seed).",
    ]
    assert [section.title for section in made.sections] == [
        "Perplexity", "Where the weights are", "How far topologies move", "What it costs", "Settings", "Runs",
    ]  # fmt: skip
    assert made.problems == made.left_out == []


def test_runs_that_have_diverged_are_said_and_are_no_mean(tmp_path: Path) -> None:
    values = {("selfish", 1): math.nan, ("selfish", 2): 90.0, ("set", 1): 95.0, ("dense", 1): math.inf}
    folders = [make_run(tmp_path / f"{name}{seed}", name, seed, value) for (name, seed), value in values.items()]
    made = write_report(folders, tmp_path)
    assert made.problems == [
        "Means, deviations and differences leave out runs without a finite test perplexity: selfish (1 run), dense (1 "
        "run)."
    ]
    comparison = made.tables[0]
    assert [row[:3] for row in comparison.rows] == [["selfish", 1, "90.00"], ["set", 1, "95.00"], ["dense", 0, ""]]
    assert comparison.best == 0
    alone = write_report(folders[-1:] + folders[:1], tmp_path)
    assert alone.tables[0].best is None


def test_a_run_without_finite_perplexities_is_said_and_has_no_empty_panel(tmp_path: Path) -> None:
    metrics = make_run(tmp_path / "a", "set") / "metrics.csv"
    make_run(tmp_path / "b", "dense")
    head, *rows = metrics.read_text().splitlines()
    metrics.write_text("\n".join([head, rows[0], *(f"{epoch},nan,inf,0" for epoch in (1, 2)), ""]))
    made = write_report([tmp_path / "a", tmp_path / "b"], tmp_path)
    assert made.left_out[0] == (
        "1 of 2 methods among the curves: set, without any finite perplexity after the first epoch."
    )
    (curves,) = (
        block for block in made.sections[0].blocks if isinstance(block, Figures) and block.title == "While training"
    )
    assert len(curves.drawings) == 1


def test_lines_that_coincide_are_said_and_not_drawn(made: Report, folder: Path) -> None:
    topology = next(section for section in made.sections if section.anchor == "topology")
    layers, gates, moved, masks = (block for block in topology.blocks if isinstance(block, Figures))
    # The word matrix stays at 8 weights and the recurrent one at 16, whose gates trade; each epoch moves 3 × 2.
    assert layers.text.endswith(
        "No tensor's share ever changes in selfish, static, sparsity 0.5, static, sparsity 0.8, "
        "<script>alert('1')</script> & $x_{$: the table above has them."
    )
    assert "in the first epoch with updates → in the last: selfish 6; static, sparsity 0.5 6; " in moved.text
    assert (layers.drawings, len(gates.drawings), moved.drawings) == ([], 4, [])
    assert "One recurrent matrix (rnn.weight_hh_l0)" in masks.text
    assert [drawing.kind for drawing in masks.drawings] == ["scale", *["panel"] * 4]


def test_what_the_runs_were_made_with(tmp_path: Path) -> None:
    for seed, torch in ((1, "2.13.0"), (2, "2.5.0")):
        results = make_run(tmp_path / f"a{seed}", seed=seed) / "results.json"
        content = json.loads(results.read_text())
        made_with = {"versions": {"python": "3.11.7", "torch": torch}, "machine": "Some Processor, 1 thread"}
        results.write_text(json.dumps({**content, **made_with}))
        os.utime(results, (86400 * 10 * seed + 43200,) * 2)
    made = write_report([tmp_path / "a1", tmp_path / "a2"], tmp_path)
    assert made.summary[-1] == (
        "Finished on 1970-01-11 to 1970-01-21 with python 3.11.7, torch 2.13.0 or 2.5.0, on Some Processor, 1 thread."
    )


def test_the_same_runs_give_the_same_page(folder: Path, made: Report, text: str, tmp_path: Path) -> None:
    write_report(sorted(path for path in folder.iterdir() if path.name != "report"), tmp_path)
    again = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert again.partition("<footer>")[0] == text.partition("<footer>")[0]


def test_more_methods_than_there_is_room_for_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_sparse_rnn.report.sections._MOST_PANELS", 1)
    folders = [make_run(tmp_path / name, name, 1, 90.0 + index) for index, name in enumerate("abc")]
    for folder in folders:  # their word matrices grow
        topology = folder / "topology.csv"
        topology.write_text(topology.read_text().replace("all,16,8,2,2", "all,16,9,2,3"))
    made = write_report(folders, tmp_path)
    assert made.left_out == [
        "1 of 3 methods in the picture of test perplexities: the first 2 by test perplexity are shown. The tables have "
        "them all.",
        *(
            f"2 of 3 methods among the {what}: the first 1 by test perplexity are shown. The tables have them all."
            for what in ("curves", "layers' budgets", "numbers of weights pruned and regrown")
        ),
        "Perplexity against sparsity: no method was run at more than one sparsity.",
    ]
