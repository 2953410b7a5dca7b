"""Runs that begin with the weights of a checkpoint do what the same does by hand."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import small_config, table, weights

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.commands.evaluate import main as run_test
from lightning_sparse_rnn.commands.export import main as run_export
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs.training import train

ONE, TWO = "trainer.max_epochs=1", "trainer.max_epochs=2"


@pytest.fixture(scope="module")
def before(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse run and a dense one."""
    folder = tmp_path_factory.mktemp("before")
    train(small_config(text, folder, ONE), folder / "sparse")
    train(small_config(text, folder, ONE, "method=dense"), folder / "dense")
    return folder


@pytest.fixture
def other_text(text: Path, tmp_path: Path) -> Path:
    """A text in which some words are new, and all others come in another order."""
    shutil.copytree(text, tmp_path / "other")
    for path in (tmp_path / "other").glob("*.txt"):  # where other tests may have kept their caches
        lines = path.read_text(encoding="utf-8").replace("w3 ", "new ").splitlines(keepends=True)
        path.write_text("".join(reversed(lines)), encoding="utf-8")
    return tmp_path / "other"


def masks(folder: Path) -> Any:
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return saved["callbacks"]["SelfishSparseCallback"]["topology"]["masks"]


def test_the_command_does_what_is_done_by_hand(text: Path, before: Path, tmp_path: Path) -> None:
    path = before / "sparse" / "checkpoints" / "last.ckpt"
    config = small_config(text, tmp_path, TWO, f"init_from={path}", "prune_rate=0.1", "optimizer.lr=2.0")
    train(config, tmp_path / "run")

    pl.seed_everything(config.seed, verbose=False)
    optimizer = {"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 2.0, "weight_decay": 1.2e-6, "nonmono": 1}
    model = LanguageModel.load_from_checkpoint(path, optimizer=optimizer)
    sparse = SelfishSparseCallback.from_checkpoint(path, prune_rate=0.1, seed=config.seed)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        gradient_clip_val=0.25,
        callbacks=[NonMonotonicAveraging(restart_at=[0.667]), sparse],
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    options = {"batch_size": 4, "eval_batch_size": 2, "bptt": 10, "cache_dir": str(tmp_path / "cache"), "seed": 1}
    trainer.fit(model, datamodule=TextDataModule("folder", str(text), **options))
    there = weights(tmp_path / "run" / "checkpoints" / "last.ckpt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, there[name]), name
    first = torch.load(path, weights_only=True)["callbacks"]["SelfishSparseCallback"]["updates"][-1]["live"]
    live = {tensor: sum(gates.values()) for tensor, gates in first.items()}
    for update in ("0", "1"):
        rows = [row for row in table(tmp_path / "run" / "topology.csv") if row["update"] == update]
        assert {t: sum(int(row["live"]) for row in rows if row["tensor"] == t) for t in live} == live


def test_other_text_is_read_with_the_vocabulary_of_the_checkpoint(
    text: Path,
    other_text: Path,
    before: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(before / "sparse", tmp_path / "sparse")
    options = [TWO, f"init_from={tmp_path / 'sparse'}", f"data.root={other_text}", "data.min_count=2"]
    config = small_config(text, tmp_path, *options)
    whole = train(config, tmp_path / "whole")
    assert re.search(r"does not know are read as <unk>: \d+\.\d% of the train text, \d", caplog.text)
    assert re.search(r"The vocabulary is that of .*best\.ckpt, without regard to data\.min_count\.", caplog.text)
    assert "best.ckpt holds weights alone: those that are not zero are live." in caplog.text
    saved, first = (
        torch.load(tmp_path / run / "best.ckpt", weights_only=True)["TextDataModule"]["text"]["tokens"]
        for run in ("whole", "sparse")
    )
    assert saved == first
    capsys.readouterr()
    run_export([str(tmp_path / "whole"), "--output", str(tmp_path / "model")])
    run_export([str(tmp_path / "whole"), "--output", str(tmp_path / "packed"), "--format", "packed"])
    capsys.readouterr()
    for file in (tmp_path / "whole", tmp_path / "whole" / "best.ckpt", tmp_path / "model", tmp_path / "packed"):
        run_test([str(file)])
        assert json.loads(capsys.readouterr().out)["test_ppl"] == pytest.approx(whole["test_ppl"], rel=1e-6)
    run_test([str(tmp_path / "model"), "--text", str(other_text / "test.txt")])
    assert json.loads(capsys.readouterr().out)["test_ppl"] == pytest.approx(whole["test_ppl"], rel=1e-6)

    # An interrupted one goes on without what it began with.
    step = LanguageModel.training_step
    with monkeypatch.context() as patch:

        def stop(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 1 and batch_idx == 1:
                raise OSError("the machine died")
            return step(self, batch, batch_idx)

        patch.setattr(LanguageModel, "training_step", stop)
        with pytest.raises(OSError, match="the machine died"):
            train(config, tmp_path / "broken")
    shutil.rmtree(tmp_path / "sparse")
    assert {**train(config, tmp_path / "broken"), "seconds": 0} == {**whole, "seconds": 0}
    one, other = masks(tmp_path / "whole"), masks(tmp_path / "broken")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_the_masks_are_of_a_sparse_checkpoint(text: Path, before: Path, tmp_path: Path) -> None:
    static = [ONE, "method=static", "sparsity=0.2"]
    last = before / "sparse" / "checkpoints" / "last.ckpt"
    train(small_config(text, tmp_path, *static, f"init_from={last}"), tmp_path / "last")
    one, other = masks(tmp_path / "last"), masks(before / "sparse")
    assert all(torch.equal(one[name], other[name]) for name in one)
    results = train(small_config(text, tmp_path, *static, f"init_from={before / 'sparse'}"), tmp_path / "best")
    there = weights(before / "sparse" / "best.ckpt")
    assert results["live_weights"] == sum(int(each.count_nonzero()) for each in there.values() if each.dim() > 1)


def test_a_dense_checkpoint_becomes_sparse_by_magnitude(text: Path, before: Path, tmp_path: Path) -> None:
    options = ["method=gmp", "method.sparsity_reached_at=0.5", "trainer.max_epochs=3", f"init_from={before / 'dense'}"]
    assert train(small_config(text, tmp_path, *options), tmp_path / "run")["sparsity"] == pytest.approx(0.67, abs=1e-3)
    rows = [row for row in table(tmp_path / "run" / "topology.csv") if row["update"] == "0"]
    assert all(row["live"] == row["total"] for row in rows)


MISTAKES = {
    (
        "dense",
        "method=selfish",
    ): "are dense, and this method draws at random which of them to keep. Expected ",
    ("sparse", "method=gmp"): r"are sparse already, and this method begins with initial_sparsity=0\.0",
    ("sparse", "model.network.hidden_size=16"): r"Its options are model\.network\.hidden_size=12\.",
    ("sparse", "data.tokens=characters"): "Expected a vocabulary of characters, as `tokens` says, got one of words",
    ("nowhere", "method=selfish"): r"There is no checkpoint .*nowhere\.",
    (".", "method=selfish"): r"the folder of a run with a best\.ckpt, or a checkpoint, got .*, which has none",
}


@pytest.mark.parametrize(("run", "override"), MISTAKES)
def test_a_mistake_is_told_before_training(run: str, override: str, text: Path, before: Path, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match=MISTAKES[run, override]):
        train(small_config(text, tmp_path, ONE, f"init_from={before / run}", override), tmp_path / "run")
    assert not (tmp_path / "run").exists()
