"""Runs that are made longer: they go on as a Trainer does that is given more epochs, and say what that means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from small_runs import small_config, table, weights

from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs.naming import run_name
from lightning_sparse_rnn.runs.parts import make_parts
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.runs.training import train


def timeless(folder: Path) -> list[dict[str, str]]:
    return [{**row, "seconds": ""} for row in table(folder / "metrics.csv")]


def test_a_lengthened_run_is_the_one_that_a_trainer_goes_on_with(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    short, long = (small_config(text, tmp_path, f"trainer.max_epochs={epochs}") for epochs in (2, 5))
    first = train(short, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "trainer")

    step = LanguageModel.training_step
    with monkeypatch.context() as patch:

        def stop(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 3:
                raise OSError("the machine died")
            return step(self, batch, batch_idx)

        patch.setattr(LanguageModel, "training_step", stop)
        with pytest.raises(OSError, match="the machine died"):
            train(long, tmp_path / "run")
    said = "This run was one of 2 epochs and goes on to 5"
    assert caplog.text.count(said) == 1
    assert "not what 5 epochs from the start would have given" in caplog.text
    results = train(long, tmp_path / "run")
    assert caplog.text.count(said) == 1
    assert results["epochs"] == 5
    assert json.loads((tmp_path / "run" / "results-2-epochs.json").read_text()) == first
    assert train(long, tmp_path / "run") == results

    pl.seed_everything(long.seed, verbose=False)
    parts = make_parts(long, tmp_path / "trainer")
    parts.trainer.fit(parts.model, datamodule=parts.data, ckpt_path=tmp_path / "trainer" / "checkpoints" / "last.ckpt")
    for name in ("best.ckpt", "checkpoints/last.ckpt"):
        one, other = weights(tmp_path / "run" / name), weights(tmp_path / "trainer" / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "trainer")
    assert table(tmp_path / "run" / "topology.csv") == table(tmp_path / "trainer" / "topology.csv")

    # What it was stays written down, and makes it another run than one of five epochs from the start.
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").lengthened_at == [2]
    assert read_run(tmp_path / "run").settings["lengthened_at"] == [2]
    with pytest.raises(SystemExit, match=r"a run of 5 epochs, which cannot become one of 2\. Expected .* at least 5"):
        train(short, tmp_path / "run")
    with pytest.raises(SystemExit, match=r"another config:\n(.*\n)*  optimizer\.lr: 30\.0, now 3"):
        train(small_config(text, tmp_path, "trainer.max_epochs=6", "optimizer.lr=3"), tmp_path / "run")


def test_what_cannot_be_lengthened_is_left_as_it_is(text: Path, tmp_path: Path) -> None:
    one = train(small_config(text, tmp_path, "trainer.max_epochs=1"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(SystemExit, match=r"and no checkpoint in checkpoints/ from which one of 2 could go on"):
        train(small_config(text, tmp_path, "trainer.max_epochs=2"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == one
    # One that had not come to the end of an epoch begins as the longer one.
    (tmp_path / "run" / "results.json").unlink()
    assert train(small_config(text, tmp_path, "trainer.max_epochs=2"), tmp_path / "run")["epochs"] == 2
    assert "lengthened_at" not in OmegaConf.load(tmp_path / "run" / "config.yaml")


def test_a_lengthening_that_never_began_leaves_the_run_as_it_was(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = (small_config(text, tmp_path, f"trainer.max_epochs={epochs}") for epochs in (1, 2))
    first = train(short, tmp_path / "run")

    def fail(*_: Any) -> None:
        raise OSError("the text is gone")

    with monkeypatch.context() as patch:
        patch.setattr("lightning_sparse_rnn.runs.training.make_parts", fail)
        with pytest.raises(OSError, match="the text is gone"):
            train(long, tmp_path / "run")
    assert {**train(short, tmp_path / "run"), "seconds": 0} == {**first, "seconds": 0}
    assert train(long, tmp_path / "run")["epochs"] == 2
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").lengthened_at == [1]


@pytest.mark.parametrize(("content", "message"), [("trainer: [", "cannot be read"), ("", "got nothing")])
def test_a_damaged_config_is_no_run_to_go_on_with(text: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=rf"settings.* in .*config\.yaml.*{message}"):
        train(small_config(text, tmp_path), tmp_path / "run")


def test_a_shorter_run_of_the_same_settings_is_named(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = {
        "seed=2,max_epochs=1": small_config(text, tmp_path, "seed=2", "trainer.max_epochs=1"),
        "seed=3,max_epochs=1": small_config(text, tmp_path, "seed=3", "trainer.max_epochs=1"),
        "lr=3,seed=2,max_epochs=1": small_config(text, tmp_path, "seed=2", "optimizer.lr=3", "trainer.max_epochs=1"),
    }
    for name, config in configs.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        OmegaConf.save(config, tmp_path / "runs" / name / "config.yaml", resolve=True)
    (tmp_path / "runs" / "seed=2").mkdir()
    (tmp_path / "runs" / "seed=2" / "config.yaml").write_text("trainer: [")
    monkeypatch.setattr("lightning_sparse_rnn.runs.training._train", lambda continued, folder: {})
    config = small_config(text, tmp_path, "seed=2", "trainer.max_epochs=2")
    told = "A shorter run of these settings is there. To lengthen it instead of beginning another: "
    train(config, tmp_path / "runs" / "seed=2,max_epochs=2")
    assert [line for line in capsys.readouterr().out.splitlines() if "name=" in line] == [
        f"{told}output={tmp_path / 'runs'} name=seed=2,max_epochs=1"
    ]
    # Names with a path end in a hash, which is another for another number of epochs.
    one, two = (run_name(["seed=2", "data.root=a/text", f"trainer.max_epochs={epochs}"]) for epochs in (1, 2))
    (tmp_path / "runs" / "seed=2,max_epochs=1").rename(tmp_path / "runs" / one)
    train(config, tmp_path / "runs" / two)
    assert f"{told}output={tmp_path / 'runs'} name={one}" in capsys.readouterr().out
