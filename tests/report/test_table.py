"""Tables as CSV and Markdown, and what the page shows of them."""

import csv
import io

from lightning_sparse_rnn.report.table import Table, as_csv, as_markdown, in_parts, shown, texts


def test_csv_and_markdown_by_hand() -> None:
    table = Table("t", "Title", "Text.", ["method", "n", "x"], [["a|b", 12345, 0.5], ["c,d", None, 0.25]], best=0)
    assert as_csv(table) == 'method,n,x\na|b,12345,0.5\n"c,d",,0.25\n'
    assert as_markdown(table) == (
        "## Title\n\nText.\n\n| method | n | x |\n| --- | --- | --- |\n"
        "| **a\\|b** | **12,345** | **0.50** |\n| c,d |  | 0.25 |\n"
    )
    assert texts(table) == [["a|b", "12,345", "0.50"], ["c,d", "", "0.25"]]
    assert [row[0] for row in csv.reader(io.StringIO(as_csv(table)))] == ["method", "a|b", "c,d"]


def test_small_numbers_keep_their_exponent() -> None:
    assert texts(Table("t", "", "", ["x"], [[1.2e-06], [0.5]])) == [["1.2e-06"], ["0.5"]]


def test_columns_without_values_are_not_shown() -> None:
    table = Table("t", "", "", ["method", "n", "remarks", "x"], [["a", None, "", 0], ["b", None, "", None]], best=1)
    seen = shown(table)
    assert (seen.columns, seen.rows, seen.best) == (["method", "x"], [["a", 0], ["b", None]], 1)
    assert shown(Table("t", "", "", ["method"], [[""]])).columns == ["method"]


def test_wide_tables_come_in_parts_of_ten_columns_at_most() -> None:
    table = Table("t", "", "", [f"c{i}" for i in range(21)], [list(range(21)), ["x", *[None] * 19, 7]])
    parts = in_parts(table)
    assert [part.columns[0] for part in parts] == ["c0"] * 3
    assert [len(part.columns) for part in parts] == [7, 8, 8]
    assert [value for part in parts for value in part.rows[0][1:]] == list(range(1, 21))
    assert [[row[0] for row in part.rows] for part in parts] == [[0], [0], [0, "x"]]  # no row without a value
    ten = Table("t", "", "", [f"c{i}" for i in range(10)], [list(range(10))])
    assert in_parts(ten) == [ten]
