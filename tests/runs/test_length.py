"""A run that would end before it is as sparse as asked for is refused before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import small_config

from lightning_sparse_rnn.runs.training import train


@pytest.mark.parametrize(
    ("options", "enough"),
    [
        (["method=gmp", "trainer.max_epochs=1"], 4),
        (["method=granet", "trainer.max_epochs=3"], 4),
        (["method=gmp", "trainer.max_epochs=4", "method.sparsity_reached_at=0.8"], 5),
        (["method=gmp", "trainer.max_epochs=6", "method.update_every_n_epochs=2"], 7),  # the last of 6 precedes 4
    ],
)
def test_too_few_epochs_are_refused(options: list[str], enough: int, text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"Expected trainer.max_epochs of {enough}, or another number in which"):
        train(small_config(text, tmp_path, *options), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["method=gmp", "trainer.max_epochs=4"],
        ["method=gmp", "trainer.max_epochs=5", "method.update_every_n_epochs=2"],
        ["method=granet", "trainer.max_epochs=1", "method.update_every_n_steps=2", "method.sparsity_reached_at=0.5"],
    ],
)
def test_just_enough_reach_the_sparsity(options: list[str], text: Path, tmp_path: Path) -> None:
    results = train(small_config(text, tmp_path, *options), tmp_path / "run")
    assert results["live_weights"] < 0.5 * results["total_weights"]


@pytest.mark.parametrize("limit", ["trainer.max_steps=100000", "trainer.max_time={minutes: 10}"])
def test_where_another_limit_may_end_it_the_run_is_made(limit: str, text: Path, tmp_path: Path) -> None:
    config = small_config(text, tmp_path, "method=gmp", "trainer.max_epochs=2", f"+{limit}")
    with (
        pytest.raises(SystemExit, match="its last topology update came too early"),
        pytest.warns(UserWarning, match="short of the 0.67 asked for"),
    ):
        train(config, tmp_path / "run")
