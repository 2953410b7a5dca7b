"""The report command: what it leaves, and what it makes of bad input."""

import json
import os
from pathlib import Path

import pytest
from made_up_runs import make_run

from lightning_sparse_rnn.commands.report import main
from lightning_sparse_rnn.report import files


def said(folder: Path, *names: str) -> str:
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in (names or ("report.md",)))


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    main([str(run)])
    left = {path.name for path in (run / "report").iterdir()}
    assert {"report.html", "report.md", "comparison.csv", "runs.csv", "distances.json"} <= left
    assert f"The report is {run / 'report' / 'report.html'}" in capsys.readouterr().out
    main([str(run)])  # a second time, and its own files are in nobody's way
    assert {path.name for path in (run / "report").iterdir()} == left


def test_a_sweep_elsewhere(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "a")
    make_run(tmp_path / "sweep" / "b", "static")
    before = sorted(path for path in (tmp_path / "sweep").rglob("*"))
    main([str(tmp_path / "sweep"), "--output", str(tmp_path / "new" / "place")])
    assert (tmp_path / "new" / "place" / "report.html").exists()
    assert sorted(path for path in (tmp_path / "sweep").rglob("*")) == before


def test_a_path_that_is_not_there_is_said_and_the_rest_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path / "nowhere"), str(tmp_path / "run")])
    assert raised.value.code == 1
    message = f"There is no {tmp_path / 'nowhere'}."
    assert message in capsys.readouterr().err
    assert message in said(tmp_path / "run" / "report")
    assert message in said(tmp_path / "run" / "report", "report.html")


def test_nothing_to_report_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="there is nothing to report on"):
        main([str(tmp_path)])
    assert f"There is no run in {tmp_path}: expected a folder that sparse-rnn-train" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="has no permissions")
def test_ctrl_c_while_the_page_is_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_report", interrupted)
    with pytest.raises(SystemExit) as raised:
        main([str(make_run(tmp_path / "run"))])
    assert raised.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"cannot write to .*Choose --output FOLDER"):
        main([str(tmp_path / "run"), "--output", str(tmp_path / "file" / "below")])


def test_all_that_can_be_wrong_with_runs_at_once(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    make_run(sweep / "good", seed=1)
    make_run(sweep / "unfinished", seed=2, test_ppl=None)
    begun = make_run(sweep / "begun", seed=3, test_ppl=None)
    (begun / "metrics.csv").unlink()
    (begun / "topology.csv").unlink()
    cut = make_run(sweep / "cut", seed=4)
    for name in ("metrics.csv", "topology.csv"):
        content = (cut / name).read_text()
        (cut / name).write_text(content[: len(content) - 4])
    masks = make_run(sweep / "masks", "set", seed=1)
    for path in (masks / "masks").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    lost = make_run(sweep / "lost", seed=6)
    (lost / "config.yaml").write_text("")
    half = make_run(sweep / "half", seed=7)
    (half / "results.json").write_text(json.dumps({"test_ppl": 1.0})[:-3])
    make_run(sweep / "diverged", seed=8, test_ppl=float("nan"))
    make_run(sweep / "other", seed=1, data__source="pydoc")
    main([str(sweep)])
    text = said(sweep / "report")
    for message in (
        "9 runs, 6 finished",
        "These runs were trained on 2 corpora, whose perplexities cannot be compared: ptb; pydoc.",
        "Perplexities on different corpora cannot be compared: each has a table.",
        "unfinished; there is no metrics.csv",
        "metrics.csv is cut short in line 4: the rows before it count",
        "topology.csv is cut short in line 10: the rows before it count",
        "masks/0000.npz cannot be read: ",
        "config.yaml cannot be read: it is empty or holds no settings",
        "unfinished; results.json cannot be read: ",
        "its test perplexity is not finite",
    ):
        assert message in text, message
    assert "| selfish on ptb | 2 | 100.00 ± 0.00 |" in text.replace("*", "")


def test_runs_of_which_none_has_anything(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", test_ppl=None)
    for name in ("metrics.csv", "topology.csv"):
        (run / name).write_text("")
    main([str(run)])
    assert "metrics.csv cannot be read: no column epoch" in said(run / "report")


def test_only_dense_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "dense")
    main([str(run)])
    assert "Where the weights are" not in said(run / "report", "report.html")
