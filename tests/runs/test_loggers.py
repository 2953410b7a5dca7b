"""What a run's loggers are told, and that each run closes its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from small_runs import small_config, table

from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs import training
from lightning_sparse_rnn.runs.loggers import hyperparameters
from lightning_sparse_rnn.runs.training import train

HERE = f"{__name__}.Tracker"


class Session:
    """A run as a tracker knows it: open until it is finished."""

    def __init__(self) -> None:
        self.hyperparameters: dict[str, Any] = {}
        self.metrics: set[str] = set()
        self.closed = False

    def finish(self) -> None:
        self.closed = True
        Tracker.current = None


class Tracker(Logger):
    """A logger whose process has one run at a time, as that of Weights & Biases: a new one goes on with an open run."""

    sessions: ClassVar[list[Session]] = []
    ends: ClassVar[list[str]] = []
    current: ClassVar[Session | None] = None

    @property
    def name(self) -> str:
        return "tracker"

    @property
    def version(self) -> str:
        return "0"

    @property
    def experiment(self) -> Session:
        if Tracker.current is None:
            Tracker.current = Session()
            self.sessions.append(Tracker.current)
        return Tracker.current

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.experiment.hyperparameters.update(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.experiment.metrics.update(metrics)

    def finalize(self, status: str) -> None:
        self.ends.append(status)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> type[Tracker]:
    monkeypatch.setattr(Tracker, "sessions", [])
    monkeypatch.setattr(Tracker, "ends", [])
    monkeypatch.setattr(Tracker, "current", None)
    monkeypatch.setattr("lightning_sparse_rnn.runs.loggers.make", lambda config: Tracker())
    return Tracker


def config_of(text: Path, tmp_path: Path, *overrides: str) -> DictConfig:
    return small_config(text, tmp_path, f"+logger._target_={HERE}", "trainer.max_epochs=2", *overrides)


def test_each_seed_is_a_run_of_its_own_and_closed(tracker: type[Tracker], text: Path, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        train(config_of(text, tmp_path, f"seed={seed}"), tmp_path / str(seed))
    assert [session.hyperparameters["run_seed"] for session in tracker.sessions] == [1, 2, 3]
    assert all(session.closed for session in tracker.sessions)


def test_a_run_that_fails_is_closed_as_failed(
    tracker: type[Tracker], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(LanguageModel, "training_step", broken)
    with pytest.raises(RuntimeError, match="broken"):
        train(config_of(text, tmp_path), tmp_path / "run")
    assert tracker.sessions[0].closed
    assert tracker.ends[-1] == "failed"


def test_a_tracker_that_does_not_begin_is_told_plainly_and_asked_once(
    tracker: type[Tracker], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def no_account(self: Tracker) -> Session:
        asked.append(self)
        raise RuntimeError("No account.")

    monkeypatch.setattr(Tracker, "experiment", property(no_account))
    expected = "Tracker did not begin. Expected a tracker that can be reached, or logger=none; it says: No account."
    with pytest.raises(ConnectionError, match=expected):
        train(config_of(text, tmp_path), tmp_path / "run")
    assert len(asked) == 1
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_no_metrics_name_is_a_folder_of_anothers(tracker: type[Tracker], text: Path, tmp_path: Path) -> None:
    train(config_of(text, tmp_path), tmp_path / "run")
    (session,) = tracker.sessions
    assert {"sparsity/overall", "sparsity/prune_rate", "val_ppl"} <= session.metrics
    assert not [(name, other) for name in session.metrics for other in session.metrics if other.startswith(f"{name}/")]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("selfish", {"method": "SelfishSparseCallback", "sparsity": 0.8, "prune_rate": 0.5, "run_seed": 1}),
        ("dense", {"method": "dense", "sparsity": 0.0, "run_seed": 1}),
    ],
)
def test_hyperparameters_tell_method_sparsity_and_rate(
    method: str, expected: dict[str, Any], text: Path, tmp_path: Path
) -> None:
    config = small_config(text, tmp_path, f"method={method}", "sparsity=0.8")
    config.chosen = None  # as without Hydra's commands
    assert hyperparameters(config) == expected
    config.chosen = {"method": "mine"}
    assert hyperparameters(config) == {**expected, "method": "mine"}


def test_csv_keeps_what_was_logged_before_an_interruption(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(run: str) -> DictConfig:
        options = ["logger=csv", f"logger.save_dir={tmp_path / run}", "trainer.log_every_n_steps=2"]
        return small_config(text, tmp_path, *options, "+logger.flush_logs_every_n_steps=1")

    train(config("whole"), tmp_path / "whole")
    step = LanguageModel.training_step

    def stop(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 2 and batch_idx == 5:
            raise OSError("the machine died")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "training_step", stop)
        with pytest.raises(OSError, match="the machine died"):
            train(config("broken"), tmp_path / "broken")
    train(config("broken"), tmp_path / "broken")
    whole, broken = (table(tmp_path / run / "csv" / "metrics.csv") for run in ("whole", "broken"))
    assert len(whole) > 12
    assert broken == whole


def test_a_tracker_that_fails_at_the_end_costs_no_results(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ConnectionError("the tracker is down")

    config = small_config(text, tmp_path, "trainer.max_epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(training, "log_end", fail)
        with pytest.raises(ConnectionError, match="the tracker is down"):
            train(config, tmp_path / "run")
    monkeypatch.setattr(training, "make_parts", fail)
    assert train(config, tmp_path / "run")["epochs"] == 1
