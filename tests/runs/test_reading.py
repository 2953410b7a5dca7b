"""Reading runs' folders, whole or not."""

import json
from pathlib import Path

import pytest
from made_up_runs import EPOCHS, make_run

from lightning_sparse_rnn.report.series import column
from lightning_sparse_rnn.runs.reading import find_runs, read_run


def test_runs_are_found_below_folders_each_once(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "sweep" / "a"), make_run(tmp_path / "sweep" / "deeper" / "b")
    (tmp_path / "sweep" / "empty").mkdir()
    found, problems = find_runs([tmp_path / "sweep", one, tmp_path / "sweep" / "deeper" / ".." / "a"])
    assert found == [one, other]
    assert problems == []


def test_a_config_that_a_tracker_keeps_within_a_run_is_no_run(tmp_path: Path) -> None:
    run, inner = make_run(tmp_path / "run"), make_run(tmp_path / "run" / "another")
    files = run / "wandb" / "offline-run-1" / "files"
    files.mkdir(parents=True)
    (files / "config.yaml").write_text("wandb_version: 1\n")
    assert find_runs([tmp_path]) == ([run, inner], [])


def test_paths_that_hold_no_run_are_said_and_others_count(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    found, problems = find_runs([tmp_path / "nowhere", tmp_path / "empty", run, run / "metrics.csv"])
    assert found == [run]
    assert problems[0] == f"There is no {tmp_path / 'nowhere'}."
    for path, problem in zip((tmp_path / "empty", run / "metrics.csv"), problems[1:], strict=True):
        assert problem.startswith(f"There is no run in {path}: expected a folder that sparse-rnn-train has made")


def test_a_whole_run(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", seed=7))
    assert run.problems == []
    assert (run.seed, run.corpus, run.settings["data.source"]) == (7, "ptb", "ptb")
    assert column(run.metrics, "val_ppl") == [(1, 150), (2, 140), (3, 130)]
    assert [epochs for epochs, _ in run.masks()] == [1, 2, 3]
    assert run.gates() == {"network.rnn.weight_hh_l0": {"input": 16, "cell": 16}}
    assert run.results is not None


@pytest.mark.parametrize(("lines", "name"), [(None, "ptb"), (100, "ptb, first 100 lines")])
def test_the_corpus_is_named_with_how_much_of_it(tmp_path: Path, lines: int | None, name: str) -> None:
    assert read_run(make_run(tmp_path / "run", data__train_lines=lines)).corpus == name


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("data__tokens", "characters", "ptb, tokens characters"),
        ("data__max_vocabulary", 5, "ptb, max_vocabulary 5"),
        ("trainer__limit_test_batches", 30, "ptb, limit_test_batches 30"),
        ("data__tokens", "words", "ptb"),
    ],
)
def test_the_corpus_is_named_with_what_else_makes_perplexities_incomparable(
    tmp_path: Path, setting: str, value: object, name: str
) -> None:
    assert read_run(make_run(tmp_path / "run", **{setting: value})).corpus == name


def test_a_folder_of_texts_is_named_by_its_place(tmp_path: Path) -> None:
    assert read_run(make_run(tmp_path / "run", data__source="folder", data__root="my/text")).corpus == "my/text"


@pytest.mark.parametrize(
    ("end", "rows"),
    [
        ("3,1", EPOCHS),  # fields are missing
        ("3,100.0,130.0,1", EPOCHS),  # whole, but for the line's end: the last number may go on
        ("3,100.0,130.0,1,9,9\n", EPOCHS),  # too many
        ("x,100.0,130.0,1\n", EPOCHS),  # no epoch
        ("3,100.0,130.0,1\n", EPOCHS + 1),
    ],
)
def test_a_table_that_is_cut_short_counts_up_to_there(tmp_path: Path, end: str, rows: int) -> None:
    folder = make_run(tmp_path / "run")
    with (folder / "metrics.csv").open("a") as file:
        file.write(end)
    run = read_run(folder)
    assert len(run.metrics) == rows
    said = [] if rows > EPOCHS else ["metrics.csv is cut short in line 5: the rows before it count"]
    assert run.problems == said


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", b"", "config.yaml cannot be read: it is empty or holds no settings"),
        ("config.yaml", b"a: [", "config.yaml cannot be read: while parsing"),
        ("config.yaml", b"\xff\xfe\xfa", "config.yaml cannot be read: "),
        ("metrics.csv", b"", "metrics.csv cannot be read: no column epoch"),
        ("metrics.csv", None, "there is no metrics.csv"),
        ("metrics.csv", b"\xff\xfe\xfa", "metrics.csv cannot be read: "),
        ("topology.csv", b"epoch,tensor\n", "topology.csv cannot be read: no column live, total, gate"),
        ("results.json", b'{"test_ppl": 1', "results.json cannot be read: "),
        ("results.json", b"[]", "results.json cannot be read: it has no test_ppl and val_ppl"),
        ("results.json", b'{"test_ppl": "low"}', "results.json cannot be read: it has no test_ppl and val_ppl"),
    ],
)
def test_files_that_cannot_be_read_are_said(tmp_path: Path, file: str, content: bytes | None, said: str) -> None:
    folder = make_run(tmp_path / "run")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    run = read_run(folder)
    assert len(run.problems) == 1
    assert run.problems[0].startswith(said)
    assert (run.results is None) == (file == "results.json")


def test_a_perplexity_that_is_none_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "results.json").write_text(json.dumps({"test_ppl": float("nan"), "val_ppl": 3.0}))
    assert read_run(folder).problems == ["its test perplexity is not finite"]
