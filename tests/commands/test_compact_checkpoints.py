"""Runs whose checkpoints are compact and in parts: they go on elsewhere, and every command reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import differences
from small_runs import small_config, table

from lightning_sparse_rnn import load_sparse
from lightning_sparse_rnn.checkpoints import packing, parts
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.checkpoints.writing import BackgroundCheckpointIO, WholeFileCheckpointIO
from lightning_sparse_rnn.commands.evaluate import main as run_test
from lightning_sparse_rnn.commands.export import main as export
from lightning_sparse_rnn.commands.generate import main as generate
from lightning_sparse_rnn.commands.report import main as report
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs.training import train

COMPACT = "compact_checkpoints=true"
AVERAGES = "callbacks.averaging.restart_at=[0.5]"  # from the third epoch on


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checkpoints of small runs have many parts."""
    monkeypatch.setattr(packing, "_SMALLEST", 0)
    monkeypatch.setattr(parts, "_SMALLEST", 1)
    monkeypatch.setattr(parts, "_AROUND_A_PART", 7000)
    for kind in (WholeFileCheckpointIO, BackgroundCheckpointIO):
        monkeypatch.setattr(kind.__init__, "__defaults__", (False, 8192))


@pytest.fixture
def interrupted(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that ended in its fourth epoch, while it was averaging."""
    step = LanguageModel.training_step

    def stop(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 3 and batch_idx == 1:
            raise OSError("the machine died")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "training_step", stop)
        with pytest.raises(OSError, match="the machine died"):
            train(small_config(text, tmp_path, AVERAGES, COMPACT), tmp_path / "begun")
    assert len(list((tmp_path / "begun" / "checkpoints").iterdir())) > 5
    return tmp_path / "begun"


def test_a_run_goes_on_elsewhere_exactly_and_every_command_reads_it(
    interrupted: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(small_config(text, tmp_path, AVERAGES), tmp_path / "whole")
    assert int(table(tmp_path / "whole" / "metrics.csv")[2]["averaging"])
    folder = tmp_path / "other machine"
    shutil.move(interrupted, folder)
    resumed = train(small_config(text, tmp_path, AVERAGES, COMPACT), folder)
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert table(folder / "topology.csv") == table(tmp_path / "whole" / "topology.csv")
    for name in ("best.ckpt", "checkpoints/last.ckpt"):
        one, other = load_checkpoint(tmp_path / "whole" / name), load_checkpoint(folder / name)
        assert len(list((folder / name).parent.glob(f"{Path(name).name}.*"))) > 2
        for entry in ("state_dict", "optimizer_states", "lightning_sparse_rnn.resume", "global_step"):
            assert not differences(one.get(entry), other.get(entry))
        for callback in ("SelfishSparseCallback", "NonMonotonicAveraging"):
            assert not differences(*(each.get("callbacks", {}).get(callback) for each in (one, other)))

    capsys.readouterr()
    run_test([str(folder)])
    assert json.loads(capsys.readouterr().out)["test_ppl"] == whole["test_ppl"]
    generate([str(folder), "--tokens", "5", "--seed", "1"])
    compactly = capsys.readouterr().out
    generate([str(tmp_path / "whole"), "--tokens", "5", "--seed", "1"])
    assert capsys.readouterr().out == compactly
    export([str(folder)])
    weights = load_checkpoint(tmp_path / "whole" / "best.ckpt")["state_dict"]
    assert not differences(dict(load_sparse(folder / "weights.sparse.pt")), dict(weights))
    report([str(folder), str(tmp_path / "whole"), "--output", str(tmp_path / "report")])
    assert "2 runs" in capsys.readouterr().out
    assert "compact_checkpoints" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_run_begun_compactly_goes_on_otherwise(interrupted: Path, text: Path, tmp_path: Path) -> None:
    train(small_config(text, tmp_path, AVERAGES), interrupted)
    assert [path.name for path in (interrupted / "checkpoints").iterdir()] == ["last.ckpt"]
    assert "state_dict" in torch.load(interrupted / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_run_that_was_copied_without_parts_does_not_begin_anew(interrupted: Path, text: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(interrupted, copied, ignore=shutil.ignore_patterns("*of*"))
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"of which last\.ckpt\..* are not beside it\. Copy all files last\.ckpt\*"):
        train(small_config(text, tmp_path, AVERAGES, COMPACT), copied)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    shutil.copytree(interrupted, copied, dirs_exist_ok=True)
    assert train(small_config(text, tmp_path, AVERAGES, COMPACT), copied)["epochs"] == 4
