"""Keys that nothing reads, and groups that are not what they should be, are refused before a run begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import small_config

from lightning_sparse_rnn.runs.config_checks import READ, check_config, near
from lightning_sparse_rnn.runs.training import train

REFUSED = {
    "+sparsty=0.5": r"Nothing reads sparsty\. Did you mean sparsity\?",
    "+trainer.callbacks=[]": r"Expected no trainer\.callbacks: .*Add one as \+callbacks\.NAME\._target_=",
    "+trainer.logger=true": r"Expected no trainer\.logger: .*Choose one with logger=csv",
    "+trainer.default_root_dir=x": r"Expected no trainer\.default_root_dir: .*output=FOLDER",
    "callbacks=null": r"Expected callbacks by name, got None\.",
    "+callbacks.stop.monitor=val_loss": r"Expected callbacks\.stop with a _target_, the class of the callback",
    "callbacks.last=7": r"Expected callbacks\.last with a _target_, the class of the callback, got 7\.",
    "+logger.version=1": r"Expected a logger with a _target_, got version alone\.",
    "seed=one": r"Expected `seed` to be a whole number of at least 0, got 'one'\.",
    "seed=-1": r"Expected `seed` to be a whole number of at least 0, got -1\.",
    "compact_checkpoints=small": r"Expected `compact_checkpoints` to be true or false, got 'small'\.",
    "trainer.gradient_clip_val=-3": r"Expected trainer\.gradient_clip_val of at least 0 \(0: no limit\), got -3\.",
    "trainer.gradient_clip_val=x": r"Expected trainer\.gradient_clip_val of at least 0 .*, got 'x'\.",
    "trainer.max_epochs=three": r"Expected `trainer\.max_epochs` to be a whole number of at least -1, got 'three'\.",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_nothing_reads_is_refused(override: str, text: Path, tmp_path: Path) -> None:
    given = small_config(text, tmp_path)
    if override == "callbacks=null":
        given.callbacks = None
    else:
        given = small_config(text, tmp_path, override)
    with pytest.raises(ValueError, match=REFUSED[override]):
        train(given, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dense_method_reads_nothing_of_a_sparse_one(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Nothing reads method\.growth: the method is dense"):
        check_config(small_config(text, tmp_path, "method=dense", "+method.growth=random"))
    with pytest.raises(ValueError, match=r"Expected method\.sparsity=0 for a dense method, got 0\.5"):
        check_config(small_config(text, tmp_path, "method=dense", "method.sparsity=0.5"))


def test_a_value_that_others_refer_to_is_read(text: Path, tmp_path: Path) -> None:
    check_config(small_config(text, tmp_path, "+size=12", "model.network.hidden_size=${size}"))


def test_what_a_run_reads_is_what_its_config_has(text: Path, tmp_path: Path) -> None:
    assert set(READ) == set(small_config(text, tmp_path))


def test_near_names_what_is_alike_and_nothing_else() -> None:
    assert near("dropuot", ["dropout", "hidden_size"]) == " Did you mean dropout?"
    assert near("xyz", ["dropout", "hidden_size"]) == ""
