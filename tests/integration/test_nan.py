"""NaN: in a metric it leaves the trigger alone, in weights it ends the run before masks or checkpoints are lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, Recipe, rest_differs
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_sparse_rnn import SNTASGD, SelfishSparseCallback

pytestmark = QUIET


class Metric(pl.Callback):
    """Overwrites the metric that the trigger waits for with one value for each validation."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            pl_module.log("monitored", self.values[trainer.current_epoch])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("values", "history", "began"),
    [
        ([3.0, None, 2.0, 1.0, 1.5, 1.75], [3.0, 2.0, 1.0, 1.5, 1.75], 5),
        ([None, None, 2.0, 1.0, 3.0, 1.0], [2.0, 1.0, 3.0, 1.0], 4),
        ([3.0, 2.0, 1.0, None, None, 0.5], [3.0, 2.0, 1.0, 0.5], None),
    ],
)
def test_a_metric_that_is_no_number_does_not_reach_the_trigger(
    tmp_path: Path, values: list[float | None], history: list[float], began: int | None, bad: float
) -> None:
    recipe = Recipe(options={"max_epochs": len(values)})
    trainer = recipe.trainer(tmp_path, Metric([bad if value is None else value for value in values]))
    (averaging,) = (callback for callback in trainer.callbacks if hasattr(callback, "began_epoch"))
    averaging.monitor = "monitored"
    module = recipe.module()
    with pytest.warns(UserWarning, match=f"The trigger of SNTASGD leaves out a validation loss of {bad}") as warned:
        trainer.fit(module, **recipe.feed(tmp_path))
    assert len([w for w in warned if "leaves out" in str(w.message)]) == values.count(None)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, SNTASGD)
    assert list(optimizer.history) == history
    assert averaging.began_epoch == began


class Poison(pl.Callback):
    """Makes the loss of one batch NaN, and takes down the masks before and after."""

    def __init__(self, sparse: SelfishSparseCallback, step: int) -> None:
        self.sparse, self.step = sparse, step
        self.masks: dict[str, Tensor] = {}

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if trainer.global_step == self.step:
            loss.data.mul_(math.nan)
            loss.register_hook(lambda gradient: gradient * math.nan)
            self.masks = masks(self.sparse)


def masks(sparse: SelfishSparseCallback) -> dict[str, Tensor]:
    topology = sparse.topology
    return {name: topology.masks[parameter].clone() for name, parameter in topology.parameters.items()}


@pytest.mark.filterwarnings("ignore:The trigger of SNTASGD leaves out a validation loss of nan")
@pytest.mark.parametrize("options", [{}, {"update_every_n_steps": 3}], ids=["epochs", "steps"])
@pytest.mark.parametrize(("optimizer", "step"), [("sntasgd", 8), ("sntasgd", 20), ("adam", 8)])
def test_weights_that_are_nan_stop_the_run_at_the_next_update_with_all_that_is_needed_to_go_on(
    tmp_path: Path, optimizer: str, step: int, options: dict[str, Any]
) -> None:
    recipe = Recipe("text", optimizer, sparse=options, options={"max_epochs": 5})
    whole = recipe.run(tmp_path)
    trainer = recipe.trainer(
        tmp_path,
        ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1),
        ModelCheckpoint(tmp_path, filename="best", monitor="val_loss"),
    )
    (sparse,) = (callback for callback in trainer.callbacks if isinstance(callback, SelfishSparseCallback))
    poison = Poison(sparse, step)
    trainer.callbacks.append(poison)
    module = recipe.module()
    torch.manual_seed(1)
    with pytest.raises(FloatingPointError, match=r"Parameter 'network\.\S+' has weights that are NaN"):
        trainer.fit(module, **recipe.feed(tmp_path))

    update = 3 if options else 6
    assert trainer.global_step == -(-(step + 1) // update) * update, "Expected the run to end at the next update."
    assert any(parameter.isnan().any() for parameter in module.parameters())
    assert all(torch.equal(mask, poison.masks[name]) for name, mask in masks(sparse).items())
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    assert not any(tensor.isnan().any() for tensor in best.values())
    before = tmp_path / f"step={step}.ckpt"
    assert not rest_differs(whole, recipe.run(tmp_path, ckpt_path=before))
