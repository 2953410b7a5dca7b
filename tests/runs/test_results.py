"""What a run's results say of texts with words that training never saw, and of texts in characters."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from small_runs import small_config

from lightning_sparse_rnn.runs.results import summary
from lightning_sparse_rnn.runs.training import train


@pytest.mark.filterwarnings("ignore:Words that the training text does not have")
def test_perplexity_without_the_words_that_training_never_saw(text: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(text, tmp_path / "text")
    test = mine / "test.txt"
    test.write_text(test.read_text(encoding="utf-8").replace("w1 ", "never "), encoding="utf-8")
    results = train(small_config(mine, tmp_path, "trainer.max_epochs=1"), tmp_path / "run")
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert 1 < results["test_ppl_known"] < results["test_ppl"]
    assert f"without unknown words {results['test_ppl_known']:.2f}" in summary(results)


def test_what_is_unknown_is_called_what_tokens_are(text: Path, tmp_path: Path) -> None:
    results = train(small_config(text, tmp_path, "data.tokens=characters", "trainer.max_epochs=1"), tmp_path / "run")
    assert ", without unknown characters 3.00, bits per character " in summary({**results, "test_ppl_known": 3.0})


def test_bits_per_character(text: Path, tmp_path: Path) -> None:
    results = train(small_config(text, tmp_path, "data.tokens=characters", "trainer.max_epochs=1"), tmp_path / "run")
    assert results["test_bpc"] == pytest.approx(math.log2(results["test_ppl"]))
    assert "test_ppl_known" not in results
    assert f"bits per character {results['test_bpc']:.2f}" in summary(results)
