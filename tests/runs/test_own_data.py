"""A data module of the user's own, named by its class, trains, tests and leaves results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import open_dict
from small_runs import small_config

from lightning_sparse_rnn.commands.report import main as report
from lightning_sparse_rnn.runs.training import train

WORDS = 12


class Numbers(pl.LightningDataModule):
    """Numbers that count up, in columns; read in ``setup``, as most data modules do."""

    vocab_size = WORDS

    def __init__(self, columns: int = 3) -> None:
        super().__init__()
        self.columns = columns

    def setup(self, stage: str) -> None:
        numbers = torch.arange(200 * self.columns).remainder(WORDS).view(self.columns, 200).T
        self.batches = [(numbers[i : i + 10], numbers[i + 1 : i + 11]) for i in range(0, 180, 10)]

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.batches, batch_size=None)

    val_dataloader = test_dataloader = train_dataloader


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:Your .*_dataloader")
def test_it_trains_tests_and_leaves_results_and_a_report(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(text, tmp_path, "trainer.max_epochs=2")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with open_dict(config):
        config.data = {"_target_": "test_own_data.Numbers", "columns": 4}
    results = train(config, tmp_path / "run")
    assert results["unigram_ppl"] is None
    assert 1 < results["test_ppl"] < 2 * WORDS
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    said = capsys.readouterr().out
    assert f"test perplexity {results['test_ppl']:.2f}, validation {results['val_ppl']:.2f}\n" in said
    report([str(tmp_path / "run")])
    assert f"{results['test_ppl']:.2f}" in (tmp_path / "run" / "report" / "report.md").read_text(encoding="utf-8")
