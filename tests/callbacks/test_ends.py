"""Runs that end elsewhere than planned: schedules follow what is known, and a run short of its sparsity says so."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, differences, end_state, loaders, make_trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset, Subset
from toy_runs import Net, fit, net

from lightning_sparse_rnn import SelfishSparseCallback, SparseModelCheckpoint

pytestmark = QUIET

SHORT = r"Training ended at sparsity 0\.\d+, short of the 0\.9 asked for"


def ramp(**options: Any) -> SelfishSparseCallback:
    """From dense to 0.9, with the densities that are asked for easy to read: in a straight line up to the end."""
    steady = {"sparsity_schedule": "linear", "sparsity_reached_at": 0.999, "growth": None, "prune_rate": 0.0}
    given = {"initial_sparsity": 0.0, "min_prune_rate": 0.0, "update_every_n_steps": 1, **steady, **options}
    return SelfishSparseCallback(0.9, **given)


class Sparsities(pl.Callback):
    """Notes how sparse the module is in every batch."""

    def __init__(self, sparse: SelfishSparseCallback) -> None:
        self.sparse = sparse
        self.seen: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen.append(self.sparse.topology.sparsity)

    @property
    def largest_step(self) -> float:
        return max(later - earlier for earlier, later in itertools.pairwise(self.seen))


class Stream(IterableDataset):
    """The batches' rows, without a number."""

    def __iter__(self) -> Any:
        return iter(loaders()[1].dataset)


STREAM = DataLoader(Stream(), batch_size=8)


class Grows(Net):
    """An epoch has more batches than the one before, or fewer."""

    lengths = (1, 5, 2, 4)

    def train_dataloader(self) -> DataLoader:
        rows = range(8 * self.lengths[self.trainer.current_epoch])
        return DataLoader(Subset(loaders()[1].dataset, rows), batch_size=8)

    def val_dataloader(self) -> DataLoader:
        return loaders()[1]


class ByHand(Net):
    """Takes its steps itself."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


@pytest.fixture(autouse=True)
def _no_warning_of_an_end() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Training ended")
        yield


@pytest.mark.parametrize(
    "limits", [{"max_epochs": 4}, {"max_epochs": -1, "max_steps": 20}, {"max_epochs": 20, "max_steps": 20}]
)
def test_a_loader_without_a_length(tmp_path: Path, limits: dict[str, int]) -> None:
    sparse = ramp(sparsity_reached_at=0.9)
    look = Sparsities(sparse)
    make_trainer(tmp_path, [sparse, look], **limits).fit(net("adam"), STREAM, loaders()[1])
    assert look.largest_step < 0.08  # 0.9 / 15 steps, since of the first epoch no one knows how long it is
    assert sparse.sparsity_reached


@pytest.mark.parametrize("limits", [{"max_epochs": 1}, {"max_epochs": -1}])
def test_an_end_that_nobody_can_know_is_refused(tmp_path: Path, limits: dict[str, int]) -> None:
    trainer = make_trainer(tmp_path, [ramp(schedule="constant")], **limits)
    with pytest.raises(
        MisconfigurationException, match="no end that is known: set `max_epochs`, `max_steps` or `max_t"
    ):
        trainer.fit(net("adam"), STREAM, loaders()[1])


def test_steps_taken_by_hand(tmp_path: Path) -> None:
    sparse = ramp(sparsity_reached_at=0.9)
    look = Sparsities(sparse)
    torch.manual_seed(1)
    fit(tmp_path, ByHand("adam"), sparse, look, max_epochs=4)
    assert look.largest_step < 0.06
    assert sparse.sparsity_reached


@pytest.mark.parametrize("lengths", [(1, 5, 2, 4), (5, 1, 1, 5), (4, 3, 2, 3)])
def test_epochs_of_other_lengths(tmp_path: Path, lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grows, "lengths", lengths)
    sparse = ramp(sparsity_reached_at=0.8)
    look = Sparsities(sparse)
    torch.manual_seed(1)
    make_trainer(tmp_path, [sparse, look], max_epochs=4, reload_dataloaders_every_n_epochs=1).fit(Grows("adam"))
    assert len(look.seen) == sum(lengths)
    assert look.seen == sorted(look.seen)
    assert look.largest_step < 0.5
    assert sparse.sparsity_reached


def test_a_resumed_run_with_epochs_of_other_lengths_is_the_uninterrupted_one(tmp_path: Path) -> None:
    def run(seed: int, *callbacks: Any, **options: Any) -> pl.Trainer:
        torch.manual_seed(seed)
        module = Grows("adam")
        trainer = make_trainer(
            tmp_path, [ramp(sparsity_reached_at=0.8), *callbacks], max_epochs=4, reload_dataloaders_every_n_epochs=1
        )
        torch.manual_seed(0)
        trainer.fit(module, **options)
        return trainer

    whole = run(1, ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1))
    for epoch in range(3):
        resumed = run(2, ckpt_path=str(tmp_path / f"epoch={epoch}.ckpt"))
        assert not differences(end_state(whole), end_state(resumed))


def test_a_limit_in_time_is_gone_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed = iter(range(100))
    monkeypatch.setattr(Timer, "time_elapsed", lambda self, stage="train": next(elapsed) / 2)
    sparse = ramp(sparsity_reached_at=0.8)
    look = Sparsities(sparse)
    trainer = fit(tmp_path, net("adam"), sparse, look, max_epochs=-1, max_time={"seconds": 40})
    assert trainer.should_stop
    assert look.largest_step < 0.1
    assert sparse.sparsity_reached


def test_a_run_that_is_stopped_short_of_its_sparsity_says_so(tmp_path: Path) -> None:
    stop = EarlyStopping("rising", patience=1)
    with pytest.warns(UserWarning, match=SHORT):
        fit(tmp_path, net("adam"), ramp(update_every_n_steps=None), stop, max_epochs=10)
    with pytest.warns(UserWarning, match=SHORT):
        fit(tmp_path, net("adam"), ramp(update_every_n_steps=None), max_epochs=2)
    fit(tmp_path, net("adam"), ramp(update_every_n_steps=None), fast_dev_run=True)


# ------------------------------------------------------------------------------------------------------ the best model


def saves(folder: Path, kind: Any, **options: Any) -> Any:
    return kind(folder / "best", monitor="rising", filename="{step}", **options)


@pytest.mark.filterwarnings("ignore:ModelCheckpoint.monitor='rising'. may keep as best a model of before")
def test_the_best_model_is_as_sparse_as_asked_for_unless_any_counts(tmp_path: Path) -> None:
    def best(kind: Any, **options: Any) -> str:
        save = saves(tmp_path / str(options) / kind.__name__, kind, **options)
        sparse = ramp(update_every_n_steps=None, sparsity_reached_at=0.5)
        fit(tmp_path, net("adam"), save, sparse, max_epochs=4)
        return Path(save.best_model_path).stem

    assert best(ModelCheckpoint) == "step=5"
    assert best(SparseModelCheckpoint) == "step=15"  # of what rises, the lowest of those that count
    assert best(SparseModelCheckpoint, at_any_sparsity=True) == "step=5"


def test_a_model_checkpoint_without_sparse_training_is_lightnings(tmp_path: Path) -> None:
    save = saves(tmp_path, SparseModelCheckpoint)
    fit(tmp_path, net("adam"), save, max_epochs=2)
    assert Path(save.best_model_path).stem == "step=5"


def test_a_checkpoint_that_may_keep_a_model_short_of_its_sparsity_is_pointed_out(tmp_path: Path) -> None:
    options = {"update_every_n_steps": None, "sparsity_reached_at": 0.5}
    with pytest.warns(UserWarning, match=r"ModelCheckpoint\(monitor='rising'\) may keep .*\.SparseModelCheckpoint"):
        fit(tmp_path, net("adam"), saves(tmp_path, ModelCheckpoint), ramp(**options), max_epochs=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="ModelCheckpoint")
        fit(tmp_path, net("adam"), saves(tmp_path / "1", SparseModelCheckpoint), ramp(**options), max_epochs=4)
        fit(tmp_path, net("adam"), ModelCheckpoint(tmp_path / "2"), ramp(**options), max_epochs=4)
        fit(tmp_path, net("adam"), saves(tmp_path / "3", ModelCheckpoint), SelfishSparseCallback(0.5), max_epochs=2)
