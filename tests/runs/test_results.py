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


@pytest.mark.parametrize(("began", "said"), [(None, "never began"), (0, "began in the 1st"), (12, "began in the 13th")])
def test_the_epoch_in_which_averaging_began_is_counted_as_a_person_counts(began: int | None, said: str) -> None:
    numbers = {"test_ppl": 54.0, "val_ppl": 53.0, "unigram_ppl": None, "live_weights": 3, "total_weights": 9}
    lines = summary({**numbers, "epochs": 18, "seconds": 81.2, "averaging_began_epoch": began})
    assert lines.splitlines()[1] == f"3 of 9 weights live, 18 epochs in 81 s, averaging {said}"


def test_bits_per_character(text: Path, tmp_path: Path) -> None:
    results = train(small_config(text, tmp_path, "data.tokens=characters", "trainer.max_epochs=1"), tmp_path / "run")
    assert results["test_bpc"] == pytest.approx(math.log2(results["test_ppl"]))
    assert "test_ppl_known" not in results
    assert f"bits per character {results['test_bpc']:.2f}" in summary(results)
