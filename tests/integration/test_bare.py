"""The package without its extras: what works, and which extra the rest asks for. ``make test-bare`` runs this."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lightning_sparse_rnn.commands.evaluate import main as evaluate
from lightning_sparse_rnn.commands.export import main as export
from lightning_sparse_rnn.commands.generate import main as generate
from lightning_sparse_rnn.commands.report import main as report
from lightning_sparse_rnn.commands.train import main as train

EXTRAS = ("matplotlib", "scipy", "pooch", "tensorboard")
pytestmark = pytest.mark.skipif(
    any(find_spec(module) for module in EXTRAS), reason="for an environment without extras: make test-bare"
)


def run_train(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sparse-rnn-train", *options])
    monkeypatch.setattr(sys, "path", list(sys.path))
    train()


def test_text_of_ones_own_is_all_it_takes(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = ["model.network.embedding_size=8", "model.network.hidden_size=8", "trainer.max_epochs=2"]
    options = ["data=folder", f"data.root={text}", "data.bptt=10", "data.eval_batch_size=2", "trainer.accelerator=cpu"]
    run_train(monkeypatch, *small, *options, "hydra.run.dir=run")
    assert (
        "The picture run.png needs matplotlib. Install it with: pip install 'lightning-sparse-rnn[report]'\n"
        in capsys.readouterr().out
    )
    assert not (tmp_path / "run" / "run.png").exists()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["epochs"] == 2
    evaluate(["run"])
    assert json.loads(capsys.readouterr().out)["test_ppl"] == results["test_ppl"]
    generate(["run", "--tokens", "9"])
    assert len(capsys.readouterr().out.split()) >= 4
    export(["run"])
    assert (tmp_path / "run" / "weights.sparse.pt").exists()


def test_what_misses_an_extra_says_which(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"pip install 'lightning-sparse-rnn\[report\]'"):
        report(["."])
    with pytest.raises(SystemExit, match=r"pip install 'lightning-sparse-rnn\[data\]'"):
        run_train(monkeypatch, "data=ptb", f"data.cache_dir={tmp_path / 'new'}")
    with pytest.raises(SystemExit, match=r"pip install 'lightning-sparse-rnn\[tensorboard\]'"):
        run_train(monkeypatch, "logger=tensorboard")
    with pytest.raises(SystemExit, match=r"pip install 'lightning-sparse-rnn\[bpe\]'"):
        run_train(monkeypatch, "data=folder", f"data.root={text}", "data.tokens=bpe", "data.max_vocabulary=300")
    capsys.readouterr()
