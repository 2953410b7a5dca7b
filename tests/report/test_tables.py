"""The report's tables, by hand."""

from pathlib import Path

from made_up_runs import make_run

from lightning_sparse_rnn.report.groups import group_runs
from lightning_sparse_rnn.report.tables import (
    accounting,
    budgets,
    comparisons,
    differences,
    runs_table,
    settings,
)
from lightning_sparse_rnn.runs.reading import read_run


def test_means_and_deviations_by_hand(tmp_path: Path) -> None:
    perplexities = {"selfish": (90.0, 92.0, 97.0), "static": (110.0,), "dense": (80.0, 81.0)}
    folders = [
        make_run(tmp_path / f"{method}{seed}", method, seed, value)
        for method, values in perplexities.items()
        for seed, value in enumerate(values)
    ]
    groups = group_runs([read_run(folder) for folder in [*folders, make_run(tmp_path / "going", "set", 1, None)]])
    table = comparisons(groups)["ptb"]
    # (90 + 92 + 97)/3 = 93; squares 9 + 1 + 16, over 2: √13 = 3.61. (80 + 81)/2 = 80.5; √0.5 = 0.71.
    assert table.columns[:5] == ["method", "seeds", "test", "validation", "gap to dense"]
    assert [row[:5] for row in table.rows] == [
        ["dense", 2, "80.50 ± 0.71", "81.50 ± 0.71", "0"],
        ["selfish", 3, "93.00 ± 3.61", "94.00 ± 3.61", "+12.50 (+15.5 %)"],
        ["static", 1, "110.00", "111.00", "+29.50 (+36.6 %)"],
    ]
    assert table.rows[1][5:] == [400.0, 0.5, 24, 3, 9]
    assert table.best == 0
    # dense − selfish: −10 and −11, mean −10.5; 12.706·√0.5/√2 = 6.353. static shares one seed: 110 − 90.
    beside = differences(groups)["ptb"]
    assert (beside.name, beside.title) == ("differences", "Test perplexity beside selfish")
    assert beside.rows == [["dense", 2, -10.5, -16.85, -4.15, "better"], ["static", 1, 20.0, None, None, None]]
    costs = accounting(groups)
    assert costs is not None
    assert costs.rows == [[method, 24, 0.5, 0.6, 0.75, 0.25] for method in ("selfish", "static")]
    shares = budgets(groups)
    assert shares is not None
    assert shares.columns == ["method", "embedding.weight", "rnn.weight_hh_l0"]
    assert shares.rows[0] == ["selfish", "0.500", "0.500"]


def test_corpora_have_a_table_each_which_says_so(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", data__source="pydoc")]
    folders.append(make_run(tmp_path / "c", test_ppl=None, data__source="wikitext2"))
    tables = comparisons(group_runs([read_run(folder) for folder in folders]))
    assert [(corpus, table.name, table.title) for corpus, table in tables.items()] == [
        ("ptb", "comparison_1", "Perplexity on ptb"),
        ("pydoc", "comparison_2", "Perplexity on pydoc"),
    ]
    assert all("Perplexities on different corpora cannot be compared" in table.text for table in tables.values())


def test_a_corpus_has_one_number_in_all_of_its_tables(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", data__source="pydoc")]
    folders.append(make_run(tmp_path / "c", "static", data__source="pydoc"))
    groups = group_runs([read_run(folder) for folder in folders])
    assert comparisons(groups)["pydoc"].name == "comparison_2"
    assert {corpus: table.name for corpus, table in differences(groups).items()} == {"pydoc": "differences_2"}


def test_differences_without_selfish_are_from_the_best_and_pair_seeds_alone(tmp_path: Path) -> None:
    values = {("set", 1): 90.0, ("set", 2): 92.0, ("static", 1): 91.0, ("static", 2): 91.5, ("dsr", 3): 99.0}
    folders = [make_run(tmp_path / f"{name}{seed}", name, seed, value) for (name, seed), value in values.items()]
    beside = differences(group_runs([read_run(folder) for folder in folders]))["ptb"]
    # set 91.0 is the best; static − set: 1, −0.5; mean 0.25, deviation 1.0607: 12.706·1.0607/√2 = 9.53.
    assert beside.title == "Test perplexity beside set"
    assert beside.rows == [["static", 2, 0.25, -9.28, 9.78, "no"]]
    assert differences(group_runs([read_run(folders[0])])) == {}


def test_a_row_a_run_with_what_is_wrong_with_it(tmp_path: Path) -> None:
    make_run(tmp_path / "again", seed=1)
    make_run(tmp_path / "going", seed=2, test_ppl=None)
    broken = make_run(tmp_path / "broken")
    (broken / "config.yaml").write_text("")
    runs = [read_run(folder) for folder in (make_run(tmp_path / "a"), tmp_path / "again", tmp_path / "going", broken)]
    table = runs_table(group_runs(runs[:3]), runs[3:])
    twice = "another run has the same settings and seed"
    assert [row[5] for row in table.rows] == [2, 2, None, 2]  # counted from 1, and in results.json from 0
    assert [(row[0], row[1], row[2], row[6]) for row in table.rows] == [
        ("selfish", 1, 100.0, twice),
        ("selfish", 1, 100.0, twice),
        ("selfish", 2, None, "unfinished"),
        ("", None, 100.0, "config.yaml cannot be read: it is empty or holds no settings"),
    ]


def test_settings_that_differ(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a", sparsity=0.4), make_run(tmp_path / "b", "static", test_ppl=120.0)]
    table = settings(group_runs([read_run(folder) for folder in folders]))
    assert table is not None
    assert (table.columns, table.rows) == (["method", "method.sparsity"], [["selfish", 0.4], ["static", 0.5]])
    assert settings(group_runs([read_run(folders[0])])) is None


def test_what_only_one_class_has_is_no_difference_of_settings(tmp_path: Path) -> None:
    sparse = {"method___target_": "Sparse", "method__growth": "random"}
    folders = [
        make_run(tmp_path / "a", test_ppl=90.0, **sparse),
        make_run(tmp_path / "b", "rigl", test_ppl=91.0, **{**sparse, "method__growth": "gradient"}),
        make_run(tmp_path / "c", "dense", test_ppl=92.0),
    ]
    table = settings(group_runs([read_run(folder) for folder in folders]))
    assert table is not None
    assert (table.columns, table.rows) == (
        ["method", "method.growth"],
        [["selfish", "random"], ["rigl", "gradient"], ["dense", "—"]],
    )
