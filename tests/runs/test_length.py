"""A run that would train to its end and have no result is refused before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import small_config

from lightning_sparse_rnn.runs.training import train


@pytest.mark.parametrize(
    "options",
    [
        ["method=gmp", "trainer.max_epochs=1"],
        ["method=granet", "trainer.max_epochs=3"],
        ["method=gmp", "trainer.max_epochs=4", "method.sparsity_reached_at=0.8"],
        ["method=gmp", "trainer.max_epochs=6", "method.update_every_n_epochs=2"],  # its last comes after 4 of 6
        ["method=gmp", "trainer.max_epochs=2", "method.update_every_n_steps=100"],  # it has not so many
        ["method=gmp", "trainer.max_epochs=8", "+trainer.max_steps=50"],
    ],
)
def test_too_few_updates_are_refused(options: list[str], text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="This run would end before its sparsity is reached"):
        train(small_config(text, tmp_path, *options), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["method=gmp", "trainer.max_epochs=4"],
        ["method=gmp", "trainer.max_epochs=5", "method.update_every_n_epochs=2"],
        ["method=gmp", "trainer.max_epochs=4", "method.sparsity_reached_at=0.7501"],  # by less than half a weight
        ["method=granet", "trainer.max_epochs=1", "method.update_every_n_steps=2", "method.sparsity_reached_at=0.5"],
    ],
)
def test_just_enough_reach_the_sparsity(options: list[str], text: Path, tmp_path: Path) -> None:
    results = train(small_config(text, tmp_path, *options), tmp_path / "run")
    assert results["live_weights"] < 0.5 * results["total_weights"]


def test_a_run_whose_sparsity_is_reached_can_be_lengthened_by_less(text: Path, tmp_path: Path) -> None:
    options = ["method=gmp", "method.update_every_n_epochs=2"]
    first = train(small_config(text, tmp_path, *options, "trainer.max_epochs=5"), tmp_path / "run")
    longer = train(small_config(text, tmp_path, *options, "trainer.max_epochs=6"), tmp_path / "run")
    assert longer["live_weights"] == first["live_weights"]


def test_where_nobody_knows_its_end_a_run_is_made(text: Path, tmp_path: Path) -> None:
    config = small_config(text, tmp_path, "method=gmp", "trainer.max_epochs=2", "+trainer.max_time={minutes: 10}")
    with (
        pytest.raises(SystemExit, match="its last topology update came too early"),
        pytest.warns(UserWarning, match="short of the 0.67 asked for"),
    ):
        train(config, tmp_path / "run")


def test_a_share_of_the_test_text_that_is_no_batch_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected trainer.limit_test_batches of at least 1 batch of the test text's"):
        train(small_config(text, tmp_path, "+trainer.limit_test_batches=0.001"), tmp_path / "run")
