"""Files written before the package's modules moved to where they are now: they load, resume, test, export and report.

``before_the_move/`` holds a finished run, the same run interrupted in its third epoch, its exported weights, their text
and what the code of that time said of them.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from files_of_before import BEFORE, COMMAND, RESTARTS
from small_runs import weights

from lightning_sparse_rnn import load_sparse
from lightning_sparse_rnn.commands.evaluate import main as run_test
from lightning_sparse_rnn.commands.export import main as export
from lightning_sparse_rnn.commands.generate import main as generate
from lightning_sparse_rnn.commands.report import main as report
from lightning_sparse_rnn.commands.train import main as run_train
from lightning_sparse_rnn.models import LanguageModel

# Where the Lightning that runs the test is older than the one that wrote the files.
pytestmark = pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning")
EXPECTED = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
# Another processor rounds in another way than the one on which these files were made.
ROUNDING = 1e-3


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, as the working directory."""
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    return tmp_path / "before"


def train_as_then(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        ["sparse-rnn-train", *COMMAND, RESTARTS, "trainer.enable_progress_bar=false", f"hydra.run.dir={folder}"],
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    run_train()


def numbers(path: Path) -> list[dict[str, float]]:
    """A table's rows without the column ``seconds``."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


def test_an_interrupted_run_goes_on_to_the_numbers_of_the_whole_one(
    before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_as_then("interrupted", monkeypatch)
    said = capsys.readouterr().out
    assert "Going on from interrupted/checkpoints/last.ckpt.\n" in said
    assert "Everything is in interrupted\n" in said
    whole, resumed = (json.loads((before / run / "results.json").read_text()) for run in ("finished", "interrupted"))
    for results in (whole, resumed):
        del results["seconds"], results["versions"]
    del resumed["machine"]  # which results did not say then
    assert resumed.pop("accounting") == pytest.approx(whole.pop("accounting"), rel=ROUNDING)
    assert resumed == pytest.approx(whole, rel=ROUNDING)
    rows = [numbers(before / run / "metrics.csv") for run in ("interrupted", "finished")]
    assert len(rows[0]) == len(rows[1]) == 4
    assert all(one == pytest.approx(other, rel=ROUNDING) for one, other in zip(*rows, strict=True))
    for name in ("best.ckpt", "checkpoints/last.ckpt"):
        ours, theirs = weights(before / "interrupted" / name), weights(before / "finished" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in ours)


def test_a_finished_run_is_finished(
    before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pytorch_lightning.Trainer.fit", lambda *args, **kwargs: pytest.fail("trained again"))
    train_as_then("finished", monkeypatch)
    assert "This run is finished: finished/results.json." in capsys.readouterr().out


def test_its_test_perplexity_is_what_it_was(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_test(["finished"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found == {name: pytest.approx(EXPECTED[name], rel=ROUNDING) for name in ("test_loss", "test_ppl")}


def test_it_writes_what_it_wrote(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(["finished", "--seed", "3", "--tokens", "12"])
    assert capsys.readouterr().out == EXPECTED["generated"]


def test_its_weights_load_and_export_as_they_did(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, exported = weights(before / "finished" / "best.ckpt"), load_sparse(before / "weights.sparse.pt")
    module = LanguageModel.load_from_checkpoint(before / "finished" / "best.ckpt").state_dict()
    assert saved.keys() == exported.keys() == module.keys()
    assert all(exported[name].equal(saved[name]) and module[name].equal(saved[name]) for name in saved)
    export(["finished", "--output", "again.pt"])
    again = load_sparse(before / "again.pt")
    assert all(again[name].equal(saved[name]) for name in saved)
    capsys.readouterr()


def test_both_runs_are_in_the_report(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(["finished", "interrupted", "--output", "report"])
    assert "2 runs, 1 finished" in capsys.readouterr().out
    assert "20.61" in (before / "report" / "report.md").read_text(encoding="utf-8")
