"""What a run shows while it trains."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from lightning_runs import QUIET
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from small_runs import small_config

from lightning_sparse_rnn.runs import progress_bar
from lightning_sparse_rnn.runs.progress_bar import PerplexityProgressBar, TimeLeft
from lightning_sparse_rnn.runs.training import train

pytestmark = QUIET


def test_without_a_terminal_there_is_a_line_per_epoch(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["trainer.max_epochs=3", "optimizer.nonmono=9"]
    train(small_config(text, tmp_path, *options), tmp_path / "run")
    printed = capsys.readouterr()
    assert "Epoch " not in printed.out + printed.err
    lines = [line for line in printed.out.splitlines() if line.startswith("After ")]
    number, guess = r"\d+\.\d\d", r"(a few seconds|about \d+ [\w ]+)"
    said = [
        rf"After 1 of 3 epochs: train ppl {number}, val ppl {number}, sparsity 67\.0%, \d+ s; 2 epochs, {guess} left",
        rf"After 2 of 3 epochs: train ppl {number}, val ppl {number}, sparsity 67\.0%, \d+ s; 1 epoch, {guess} left",
        rf"After 3 of 3 epochs: train ppl {number}, val ppl {number} \(averaged weights\), sparsity 67\.0%, \d+ s",
    ]
    assert all(re.fullmatch(*both) for both in zip(said, lines, strict=True)), lines


@pytest.mark.parametrize(("seconds", "drawn"), [(0.01, [1, 4, 6]), (1.5, [1, 3, 4, 6])])
def test_the_bar_is_drawn_after_so_many_batches_or_seconds(
    seconds: float, drawn: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])

    class Slow(BoringModel):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            now[0] += seconds

    class Bar(PerplexityProgressBar):
        at: ClassVar[list[int]] = []

        def get_metrics(self, *args: Any) -> dict[str, Any]:
            self.at.append(self.trainer.fit_loop.epoch_loop.batch_progress.current.processed)
            return {}

    bar = Bar(refresh_rate=4)
    Trainer(
        max_epochs=1,
        limit_train_batches=6,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[bar],
    ).fit(Slow())
    assert sorted(set(bar.at)) == drawn


def trainer(epoch: int, max_epochs: int = -1, step: int = 0, max_steps: int = -1) -> Any:
    return SimpleNamespace(current_epoch=epoch, max_epochs=max_epochs, global_step=step, max_steps=max_steps)


def test_what_is_left_is_reckoned_from_this_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
    left = TimeLeft()
    left.begin(trainer(4, 10))  # four epochs were trained in another session
    assert left.said(trainer(4, 10), 0.0) == "5 epochs"
    now[0] += 30.0  # half an epoch in 30 s: 5.5 epochs are left
    assert left.said(trainer(4, 10), 0.5) == "5 epochs, about 6 min"
    assert left.said(trainer(9, 10), 0.5) == "a few seconds"
    assert left.said(trainer(9, 10), 1.0) == ""
    left.begin(trainer(0, max_steps=100))
    now[0] += 10.0
    assert left.said(trainer(0, step=20, max_steps=100), 0.3) == "about 40 s"
    assert left.said(trainer(0), 0.3) == ""
