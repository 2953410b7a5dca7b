"""A run that is resumed from a checkpoint is the run that was not interrupted, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import (
    NETWORKS,
    QUIET,
    Recipe,
    Record,
    Rising,
    Run,
    loaders,
    make_trainer,
    rest_differs,
    sparse_callbacks,
    toy,
)
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.callbacks.exact_resume import ExactResume
from lightning_sparse_rnn.sparsity.rules.growth import GROWTH

pytestmark = QUIET

TOY, TEXT = Recipe(), Recipe("text")
RECIPES = {
    "toy": TOY,
    "toy, updates by steps": Recipe(sparse={"update_every_n_steps": 3}),
    "toy, Adam": Recipe(optimizer="adam"),
    "toy, Adam, updates by steps": Recipe(optimizer="adam", sparse={"update_every_n_steps": 3}),
    "toy, validation every other epoch": Recipe(options={"check_val_every_n_epoch": 2, "max_epochs": 8}),
    "toy, max_steps": Recipe(options={"max_epochs": -1, "max_steps": 18}),
    "toy, no sanity check": Recipe(options={"num_sanity_val_steps": 0}),
    "text": TEXT,
    "text, updates by steps": Recipe("text", sparse={"update_every_n_steps": 4}),
    "text, Adam": Recipe("text", optimizer="adam"),
    "text, drawn lengths, parts in other orders": Recipe("text", data={"lengths": "drawn", "shuffle_parts": 4}),
    "text, validation in mid-epoch": Recipe("text", options={"val_check_interval": 4}),
    "text, validation by batches": Recipe("text", options={"check_val_every_n_epoch": None, "val_check_interval": 5}),
    "text, max_steps": Recipe("text", options={"max_epochs": -1, "max_steps": 22}),
    "text, accumulation": Recipe("text", options={"accumulate_grad_batches": 3}),
    "text, limited": Recipe("text", options={"limit_train_batches": 5, "limit_val_batches": 2}),
    **{f"text, {name}": Recipe("text", network=network) for name, network in NETWORKS.items()},
    **{f"text, growth {growth}": Recipe("text", sparse={"growth": growth}) for growth in GROWTH if growth != "random"},
}


class AtEpochEnd(ModelCheckpoint):
    """A second checkpoint callback of the same kind, under a key of its own."""


def savers(folder: Path, steps: int) -> list[pl.Callback]:
    """Save at every validation's and epoch's end, and every so many optimizer steps."""
    everything = {"dirpath": folder / "saved", "save_top_k": -1}
    return [
        ModelCheckpoint(
            **everything,
            filename="validation-{step}",
            monitor="rising",
            mode="max",
            save_last=True,
            save_on_train_epoch_end=False,
        ),
        AtEpochEnd(**everything, filename="epoch-{step}", every_n_epochs=1, save_on_train_epoch_end=True),
        ModelCheckpoint(**everything, filename="step-{step}", every_n_train_steps=steps),
    ]


def saved(folder: Path) -> list[Path]:
    return sorted((folder / "saved").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture
def _deterministic() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.usefixtures("_deterministic")
def test_on_a_gpu_a_resumed_run_is_the_uninterrupted_one_with_dropout_inside_cudnn_too(tmp_path: Path) -> None:
    recipe = Recipe("text", options={"accelerator": "gpu", "devices": 1, "deterministic": True})
    whole = recipe.run(tmp_path, *savers(tmp_path, steps=4))
    for path in saved(tmp_path):
        if torch.load(path, weights_only=True, map_location="cpu")["global_step"] < whole.trainer.global_step:
            # Saving is part of the run: it renews the state of cuDNN's dropout.
            resumed = recipe.run(tmp_path, *savers(tmp_path, steps=4), ckpt_path=path)
            assert not rest_differs(whole, resumed), path.name


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_resumed_from_any_checkpoint_is_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    # The toy's shuffling loader does not know its place in an epoch: only the last of the epoch's five steps. Of the
    # six steps of the text every fourth is sometimes in the middle of an epoch, sometimes right before a validation.
    whole = recipe.run(tmp_path, *savers(tmp_path, steps=5 if recipe.kind == "toy" else 4))
    averaging = []
    for path in saved(tmp_path):
        checkpoint = torch.load(path, weights_only=True)
        averaging.append(checkpoint["optimizer_states"][0].get("averaging", {}).get("averaging"))
        if checkpoint["global_step"] < whole.trainer.global_step:
            resumed = recipe.run(tmp_path, ckpt_path=path)
            assert resumed.rows[-1] == whole.rows[-1], path.name
            assert not rest_differs(whole, resumed), path.name
    assert len(averaging) >= 8
    assert set(averaging) == ({False, True} if recipe.optimizer == "sntasgd" else {None})


def test_a_checkpoint_of_a_validations_end_brings_its_metrics_along_to_the_epochs_end(tmp_path: Path) -> None:
    def run(ckpt_path: Path | None = None) -> ModelCheckpoint:
        best = AtEpochEnd(tmp_path / "best", monitor="rising", mode="max", save_on_train_epoch_end=True)
        TEXT.run(tmp_path, savers(tmp_path, steps=4)[0], best, ckpt_path=ckpt_path)
        return best

    whole = run()
    at_validations = [path for path in saved(tmp_path) if path.name.startswith("validation")]
    assert len(at_validations) == 4
    for path in at_validations:
        assert run(path).best_model_score == whole.best_model_score, path.name


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_trainer_has_one_exact_resume_behind_the_last_of_ours_and_before_what_saves(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    listed = [
        SelfishSparseCallback(0.5),
        NonMonotonicAveraging("rising"),
        pl.callbacks.Timer(),
        ModelCheckpoint(tmp_path),
    ]
    trainer = make_trainer(tmp_path, [listed[index] for index in order], max_epochs=1)
    for _ in range(2):
        trainer.fit(toy(), *loaders())
        (found,) = [index for index, each in enumerate(trainer.callbacks) if isinstance(each, ExactResume)]
        assert found == 1 + max(trainer.callbacks.index(each) for each in listed[:2])
        assert found < trainer.callbacks.index(listed[3])


@pytest.mark.parametrize("ours", [[SelfishSparseCallback], [NonMonotonicAveraging]])
def test_each_of_ours_brings_it_along_also_to_a_test(tmp_path: Path, ours: list[type]) -> None:
    trainer = make_trainer(tmp_path, [kind() for kind in ours])
    trainer.test(toy(), loaders()[1], verbose=False)
    assert [type(each) for each in trainer.callbacks][:2] == [*ours, ExactResume]


class Interrupts(pl.Callback):
    """Breaks off the third validation when it has ended, before or after our callbacks have seen that."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.current_epoch == 2:
            raise RuntimeError("the machine is gone")


@pytest.mark.filterwarnings(
    "ignore:`.fit.ckpt_path=None.` was called without a model",
    "ignore:.fit.ckpt_path=.last.. is set, but there is no last checkpoint",
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_validation_is_made_again_unless_all_of_ours_have_seen_its_end(tmp_path: Path, position: int) -> None:
    whole = TEXT.run(tmp_path)

    def run(*callbacks: pl.Callback, seed: int = 1, **options: Any) -> Run:
        module, record = TEXT.module(seed), Record()
        sparse, averaging = sparse_callbacks()
        listed = [sparse, averaging]
        for callback in callbacks:
            listed.insert(position, callback)
        save = pl.callbacks.OnExceptionCheckpoint(tmp_path, filename="broken")
        trainer = make_trainer(tmp_path, [Rising(), *listed, record, save], max_epochs=4)
        torch.manual_seed(seed)
        trainer.fit(module, **TEXT.feed(tmp_path), **options)
        return Run(trainer, module, record.rows)

    with pytest.raises(RuntimeError, match="the machine is gone"):
        run(Interrupts())
    assert not rest_differs(whole, run(seed=2, ckpt_path=tmp_path / "broken.ckpt"))
