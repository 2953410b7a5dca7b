"""The picture of a run is drawn while it goes on, and no run ends by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import EPOCHS, small_config

pytest.importorskip("matplotlib")

from lightning_sparse_rnn.runs import picture, run_picture
from lightning_sparse_rnn.runs.config import in_one_line
from lightning_sparse_rnn.runs.folder import kept_masks, masks_at_start
from lightning_sparse_rnn.runs.training import train
from lightning_sparse_rnn.sparsity.mask_files import load_masks


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What pictures were asked for, each with the epochs that it shows."""
    calls: list[dict[str, Any]] = []
    draw = picture.draw_run

    def noted(rows: Any, topology: Any, masks: Any, **others: Any) -> Any:
        calls.append({"epochs": len(rows), "masks": [which for which, _ in masks], **others})
        return draw(rows, topology, masks, **others)

    monkeypatch.setattr(picture, "draw_run", noted)
    return calls


def test_a_picture_each_epoch_where_there_is_time(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(run_picture, "_FIRST_AFTER", 0.0)
    monkeypatch.setattr(run_picture, "_SHARE", float("inf"))
    results = train(small_config(text, tmp_path), tmp_path / "run")
    assert [call["epochs"] for call in drawn] == [*range(1, EPOCHS + 1), EPOCHS]
    assert [call["test"] for call in drawn] == [None] * EPOCHS + [results["test_ppl"]]
    assert {call["unigram"] for call in drawn} == {results["unigram_ppl"]}
    assert drawn[0]["masks"] == ["at the start", "after epoch 1"]
    assert drawn[-1]["masks"] == ["at the start", f"after epoch {EPOCHS}"]
    assert (tmp_path / "run" / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_short_run_has_one_picture(text: Path, tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    train(small_config(text, tmp_path, "trainer.max_epochs=2"), tmp_path / "run")
    assert [call["epochs"] for call in drawn] == [2]


def test_a_picture_that_fails_is_said_once_and_ends_no_run(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_picture, "_FIRST_AFTER", 0.0)
    said: list[str] = []
    monkeypatch.setattr(run_picture, "rank_zero_info", said.append)
    draw = picture.draw_run

    def fail(*args: Any, **options: Any) -> Any:
        if options["test"] is None:
            raise OSError("no space left")
        return draw(*args, **options)

    monkeypatch.setattr(picture, "draw_run", fail)
    train(small_config(text, tmp_path), tmp_path / "run")
    assert said == ["run.png is not drawn while training: no space left"]
    assert (tmp_path / "run" / "run.png").exists()


def test_a_damaged_file_of_masks_costs_their_part_of_the_picture(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(run_picture, "load_masks", lambda path: load_masks(Path(__file__)))
    train(small_config(text, tmp_path, "trainer.max_epochs=2"), tmp_path / "run")
    assert [call["masks"] for call in drawn] == [[]]


@pytest.mark.parametrize("method", ["selfish", "snip", "gmp"])
def test_the_topology_of_the_first_step_is_kept(text: Path, tmp_path: Path, method: str) -> None:
    train(small_config(text, tmp_path, f"method={method}", f"trainer.max_epochs={EPOCHS}"), tmp_path / "run")
    start, (epochs, path) = load_masks(masks_at_start(tmp_path / "run")), kept_masks(tmp_path / "run")[-1]
    end, live = load_masks(path), {"selfish": 0.33, "snip": 0.33, "gmp": 1.0}[method]
    assert epochs == EPOCHS
    assert start.keys() == end.keys()
    total = sum(mask.size for mask in start.values())
    assert sum(mask.sum() for mask in start.values()) / total == pytest.approx(live, abs=0.01)
    same = all(np.array_equal(start[name], end[name]) for name in start)
    assert same is (method == "snip")


def test_what_a_run_is_about_is_one_line(text: Path, tmp_path: Path) -> None:
    config = small_config(text, tmp_path, "seed=3")
    config.chosen = {"method": "selfish", "experiment": None, "data": "folder", "model": "small_lstm"}
    assert in_one_line(config) == "selfish, sparsity 0.67, prune rate 0.5 · folder · small_lstm · seed 3"
    config.chosen.experiment = "ptb_small"
    assert in_one_line(config) == "selfish, sparsity 0.67, prune rate 0.5 · ptb_small · small_lstm · seed 3"
    config = small_config(text, tmp_path, "method=small_dense")
    config.chosen = {}
    assert in_one_line(config) == "as small as at sparsity 0.67 · seed 1"
