"""The picture of a run is drawn while it goes on, as often as time allows, and no run ends by it."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import EPOCHS, small_config

from lightning_sparse_rnn.runs import picture, run_picture
from lightning_sparse_rnn.runs.run_picture import in_two_lines
from lightning_sparse_rnn.runs.training import train


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What pictures were asked for, each with the number of epochs that it shows."""
    calls: list[dict[str, Any]] = []
    draw = picture.draw_run

    def noted(rows: Any, topology: Any, **others: Any) -> Any:
        calls.append({"epochs": len(rows), **others})
        return draw(rows, topology, **others)

    monkeypatch.setattr(picture, "draw_run", noted)
    return calls


def _without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_picture, "_SHARE", float("inf"))


def test_a_picture_each_epoch_where_there_is_time(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[dict[str, Any]]
) -> None:
    _without_limits(monkeypatch)
    results = train(small_config(text, tmp_path), tmp_path / "run")
    assert [call["epochs"] for call in drawn] == [*range(1, EPOCHS), EPOCHS]  # the last one has the test score
    assert [call["results"].get("test_ppl") for call in drawn] == [*[None] * (EPOCHS - 1), results["test_ppl"]]
    assert {call["results"]["unigram_ppl"] for call in drawn} == {results["unigram_ppl"]}
    whens = [[view.when for view in call["masks"][1]] for call in drawn]
    assert whens == [["at the start"], *(["at the start", f"after epoch {epoch}"] for epoch in range(2, EPOCHS + 1))]
    live = f"{results['live_weights']:,} of {results['total_weights']:,} weights live"
    assert drawn[-1]["about"].splitlines()[2] == live
    assert (tmp_path / "run" / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_short_run_has_one_picture(text: Path, tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    train(small_config(text, tmp_path, "trainer.max_epochs=2"), tmp_path / "run")
    assert [call["epochs"] for call in drawn] == [2]


def test_a_picture_that_fails_is_said_and_ends_no_run(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without_limits(monkeypatch)
    asked, said = [], []

    def fail(rows: Any, *args: Any, **options: Any) -> Any:
        asked.append(len(rows))
        raise RuntimeError("no fonts")

    monkeypatch.setattr(picture, "draw_run", fail)
    monkeypatch.setattr(run_picture, "rank_zero_info", said.append)
    results = train(small_config(text, tmp_path), tmp_path / "run")
    assert results["epochs"] == EPOCHS
    assert (tmp_path / "run" / "results.json").exists()
    assert asked == [1, EPOCHS]  # not tried again while training goes on
    assert said == ["run.png is not drawn while training goes on: no fonts"]
    assert "run.png could not be drawn: no fonts" in capsys.readouterr().out
    assert not (tmp_path / "run" / "run.png").exists()


def test_what_a_run_is_about_is_two_lines(text: Path, tmp_path: Path) -> None:
    config = small_config(text, tmp_path, "seed=3")
    config.chosen = {
        "method": "selfish",
        "experiment": None,
        "data": "folder",
        "model": "small_lstm",
        "optimizer": None,
    }
    assert in_two_lines(config).splitlines() == [
        "selfish · folder · small_lstm · seed 3",
        "sparsity 0.67, prune rate 0.5, initial scale density, lr 30.0, layers 2, hidden 12, dropout 0.2, batch 4, "
        "bptt 10",
    ]
    config = small_config(text, tmp_path, "method=dense")
    config.chosen = {}
    assert in_two_lines(config).splitlines()[0] == "seed 1"
    assert "sparsity" not in in_two_lines(config).splitlines()[1].replace("sparsity 0.0", "")
