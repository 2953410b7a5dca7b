"""The model in a checkpoint is the averaged, masked one that was validated, wherever it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import NETWORKS, QUIET, Recipe, Toy, in_a_fresh_process, loaders, make_trainer, text
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_sparse_rnn import SelfishSparseCallback
from lightning_sparse_rnn.models import LanguageModel

pytestmark = QUIET

FIVE_EPOCHS = {"max_epochs": 5}
RECIPES = {
    "toy": Recipe(options=FIVE_EPOCHS),
    "text": Recipe("text", options=FIVE_EPOCHS),
    "text, tied weights": Recipe("text", network=NETWORKS["tied LSTM"], options=FIVE_EPOCHS),
}


def held_out(kind: str, folder: Path) -> dict[str, Any]:
    """What to evaluate on, as arguments of ``validate`` and ``test``."""
    return {"dataloaders": loaders()[1]} if kind == "toy" else {"datamodule": text(folder / "text")}


def loss_of(module: pl.LightningModule, kind: str, folder: Path, *callbacks: Any, ckpt_path: Any = None) -> float:
    trainer = make_trainer(folder, callbacks)
    (metrics,) = trainer.test(module, **held_out(kind, folder), ckpt_path=ckpt_path, verbose=False)
    return float(metrics["test_loss"])


def losses_in_a_fresh_process(kind: str, folder: Path) -> None:
    path = folder / "best.ckpt"
    callbacks = RECIPES[kind].trainer(folder).callbacks
    losses = [
        loss_of(RECIPES[kind].module(seed=3), kind, folder, ckpt_path=path),
        loss_of(RECIPES[kind].module(seed=3), kind, folder, *callbacks[:3], ckpt_path=path),
    ]
    (folder / "losses.json").write_text(json.dumps(losses))


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("kind", RECIPES)
def test_the_best_checkpoint_has_the_same_loss_wherever_it_is_loaded(
    tmp_path: Path, kind: str, weights_only: bool
) -> None:
    recipe = RECIPES[kind]
    # The best of a metric that rises is the last one, an average over several topologies.
    saver = ModelCheckpoint(tmp_path, filename="best", monitor="rising", mode="max", save_weights_only=weights_only)
    trainer, module, rows = recipe.run(tmp_path, saver)
    path = Path(saver.best_model_path)
    (validated,) = trainer.validate(module, **held_out(kind, tmp_path), ckpt_path="best", verbose=False)
    assert validated["val_loss"] == [value for _, name, value in rows if name == "val_loss"][-1]
    (tested,) = trainer.test(module, **held_out(kind, tmp_path), ckpt_path="best", verbose=False)
    loss = tested["test_loss"]

    assert loss_of(recipe.module(seed=4), kind, tmp_path) != loss
    plain = recipe.module(seed=4)
    plain.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert loss_of(plain, kind, tmp_path) == loss
    loaded = (Toy if kind == "toy" else LanguageModel).load_from_checkpoint(path)
    assert loss_of(loaded, kind, tmp_path) == loss
    assert loss_of(recipe.module(seed=4), kind, tmp_path, SelfishSparseCallback(0.5), ckpt_path=path) == loss
    assert in_a_fresh_process(losses_in_a_fresh_process, kind, tmp_path) == 0
    assert json.loads((tmp_path / "losses.json").read_text()) == [loss, loss]


class Watch(pl.Callback):
    """Takes down w, ŵ and the masks after every step."""

    def __init__(self) -> None:
        self.training: dict[int, dict[str, Tensor]] = {}
        self.averaged: dict[int, dict[str, Tensor]] = {}
        self.masks: dict[int, dict[str, Tensor]] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        (optimizer,) = trainer.optimizers
        (sparse,) = (callback for callback in trainer.callbacks if isinstance(callback, SelfishSparseCallback))
        masks, named = sparse.topology.masks, dict(pl_module.named_parameters())
        self.training[trainer.global_step] = {name: parameter.detach().clone() for name, parameter in named.items()}
        self.averaged[trainer.global_step] = {name: optimizer.averaged(parameter) for name, parameter in named.items()}
        self.masks[trainer.global_step] = {name: masks[named[name]].clone() for name in sparse.topology.parameters}


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize(
    "moment",
    [
        {"every_n_train_steps": 1},
        {"save_on_train_epoch_end": False},
        {"save_on_train_epoch_end": True},
    ],
    ids=["steps", "validation", "epochs"],
)
def test_every_checkpoint_holds_averaged_masked_weights(
    tmp_path: Path, moment: dict[str, Any], weights_only: bool
) -> None:
    watch = Watch()
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_weights_only=weights_only, **moment)
    run = RECIPES["text"].run(tmp_path, watch, saver)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) == (30 if "every_n_train_steps" in moment else 5)
    for path in paths:
        checkpoint = torch.load(path, weights_only=True)
        step, weights = checkpoint["global_step"], checkpoint["state_dict"]
        assert weights.keys() == run.module.state_dict().keys()
        for name, averaged in watch.averaged[step].items():
            assert torch.equal(weights[name], averaged), (path.name, name)
            if not weights_only and step > 18:  # when the trigger fires
                assert torch.equal(
                    checkpoint["lightning_sparse_rnn.training_weights"][name], watch.training[step][name]
                )
        for name, mask in watch.masks[step].items():
            assert not weights[name][mask == 0].any(), (path.name, name)
    last = torch.load(tmp_path / "step=30.ckpt", weights_only=True)["state_dict"]
    assert not any(torch.equal(last[name], watch.training[30][name]) for name in watch.masks[30])


@pytest.mark.parametrize("kind", RECIPES)
def test_a_file_holds_trained_and_averaged_weights_once_each(tmp_path: Path, kind: str) -> None:
    saver = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    _, module, _ = RECIPES[kind].run(tmp_path, saver)
    checkpoint = torch.load(saver.best_model_path, weights_only=True)
    (optimizer,) = checkpoint["optimizer_states"]
    means = {state["mean"].data_ptr() for state in optimizer["state"].values()}
    trained = {weight.data_ptr() for weight in checkpoint["lightning_sparse_rnn.training_weights"].values()}
    assert {weight.data_ptr() for weight in checkpoint["state_dict"].values()} == means
    assert len(means) == len(trained) == len(list(module.parameters()))
    assert not means & trained
    assert all("sum" not in state for state in optimizer["state"].values())


@pytest.mark.parametrize("moment", [{"every_n_train_steps": 4}, {"save_weights_only": True}], ids=["step", "weights"])
@pytest.mark.parametrize("kind", RECIPES)
def test_other_files_hold_tied_weights_once_too(tmp_path: Path, kind: str, moment: dict[str, Any]) -> None:
    saver = ModelCheckpoint(tmp_path, **{"save_on_train_epoch_end": True, **moment})
    _, module, _ = RECIPES[kind].run(tmp_path, saver)
    weights = torch.load(saver.best_model_path, weights_only=True)["state_dict"]
    assert weights.keys() == module.state_dict().keys()
    assert len({weight.data_ptr() for weight in weights.values()}) == len(list(module.parameters()))
