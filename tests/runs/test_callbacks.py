"""A run's callbacks come from its config: any other is added, and its own are changed or left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from small_runs import small_config

from lightning_sparse_rnn.runs.checkpoint_callbacks import BestCheckpoint, LastCheckpoint
from lightning_sparse_rnn.runs.training import train

STOP = ["+callbacks.stop._target_=pytorch_lightning.callbacks.EarlyStopping", "+callbacks.stop.monitor=val_loss"]


def test_another_callback_is_added(text: Path, tmp_path: Path) -> None:
    # No loss falls by a hundred nats: training stops after the first epoch that does not.
    options = [*STOP, "+callbacks.stop.min_delta=100", "+callbacks.stop.patience=1"]
    results = train(small_config(text, tmp_path, *options), tmp_path / "run")
    assert results["epochs"] == 2
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert any(name.startswith("EarlyStopping") for name in saved)
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").callbacks.stop.min_delta == 100


def test_the_progress_bar_is_changed_or_left_out(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["trainer.max_epochs=1"]
    train(small_config(text, tmp_path, *one, "~callbacks.progress"), tmp_path / "none")
    assert "Epoch" not in capsys.readouterr().err
    plain = "callbacks.progress._target_=pytorch_lightning.callbacks.TQDMProgressBar"
    train(small_config(text, tmp_path, *one, plain, "trainer.enable_progress_bar=true"), tmp_path / "plain")
    printed = capsys.readouterr()
    assert "Epoch 0" in printed.out + printed.err
    assert "sparsity=" not in printed.out + printed.err


def test_a_run_without_checkpoints_to_resume_from(text: Path, tmp_path: Path) -> None:
    train(small_config(text, tmp_path, "~callbacks.last", "trainer.max_epochs=1"), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert (tmp_path / "run" / "best.ckpt").exists()


@pytest.mark.parametrize("name", ["best", "record"])
def test_what_results_are_made_of_stays(name: str, text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"Expected callbacks\.{name} to be a "):
        train(small_config(text, tmp_path, f"~callbacks.{name}"), tmp_path / "run")


def test_plugins_of_ones_own_stand_beside_the_runs(text: Path, tmp_path: Path) -> None:
    plugin = "+trainer.plugins=[{_target_: pytorch_lightning.plugins.environments.LightningEnvironment}]"
    assert train(small_config(text, tmp_path, plugin, "trainer.max_epochs=1"), tmp_path / "run")["epochs"] == 1


@pytest.mark.parametrize("kind", [BestCheckpoint, LastCheckpoint])
def test_a_folder_that_has_moved_keeps_its_best_score(kind: type, tmp_path: Path) -> None:
    old, new = kind(), kind()
    module = pl.LightningModule()
    for callback, folder in ((old, tmp_path / "old"), (new, tmp_path / "new")):
        trainer = pl.Trainer(default_root_dir=str(folder), logger=False, callbacks=[callback], accelerator="cpu")
        callback.setup(trainer, module, "test")
    path = Path(old.dirpath) / "best.ckpt"
    old.best_model_score, old.best_model_path = torch.tensor(2.5), str(path)
    old.best_k_models, old.kth_best_model_path, old.kth_value = (
        {str(path): torch.tensor(2.5)},
        str(path),
        torch.tensor(2.5),
    )
    new.load_state_dict(old.state_dict())
    moved = str(Path(new.dirpath) / "best.ckpt")
    assert moved.startswith(str(tmp_path / "new"))
    assert (float(new.best_model_score), new.best_model_path) == (2.5, moved)
    assert new.best_k_models == {moved: torch.tensor(2.5)}
    assert new.last_model_path == ""
