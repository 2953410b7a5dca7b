"""Sparse training in the Trainer's precisions, and loss scaling that skips steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import NETWORKS, QUIET, Recipe, differences, end_state, loaders, make_trainer
from mixed_precision import ScaledOnCPU, overflows
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from toy_runs import Watch, fit, net, weights

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback

pytestmark = [*QUIET, pytest.mark.usefixtures("bfloat16")]

DTYPES = {
    "bf16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "64-true": torch.float64,
}


def ours(optimizer: str, **options: Any) -> list[pl.Callback]:
    sparse = SelfishSparseCallback(0.5, **options)
    return [sparse, NonMonotonicAveraging("rising")] if optimizer == "sntasgd" else [sparse]


class History(pl.Callback):
    """Keeps the weights after every training batch, and those that the last validation saw."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.validated: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.trained.append(weights(pl_module))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated = weights(pl_module)


# --------------------------------------------------------------------------------------------- lower and higher ones


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "sntasgd"])
@pytest.mark.parametrize("precision", DTYPES)
def test_masks_have_the_precision_of_the_weights_and_are_as_exact(
    tmp_path: Path, precision: Any, optimizer: str
) -> None:
    sparse, *averaging = ours(optimizer)
    watch = Watch(sparse)
    module = net(optimizer)
    fit(tmp_path, module, watch, sparse, *averaging, max_epochs=5, precision=precision)
    assert watch.counts == {"lstm.weight_ih_l0": 36, "lstm.weight_hh_l0": 72, "linear.weight": 6}
    assert watch.batches == 25
    for parameter, mask in sparse.topology.masks.items():
        assert parameter.dtype == mask.dtype == DTYPES[precision]
    # The same draw as in single precision, where topologies depend on nothing but the seed.
    single = SelfishSparseCallback(0.5)
    fit(tmp_path, net("adam"), single, max_epochs=1)
    assert sparse.updates[0] == single.updates[0]


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_and_validates_in_any_precision(tmp_path: Path, name: str, precision: Any) -> None:
    run = Recipe("text", network=NETWORKS[name], options={"precision": precision}).run(tmp_path)
    assert {kind for _, kind, _ in run.rows} >= {"loss", "val_loss"}
    assert all(0.0 < loss < 5.0 for _, kind, loss in run.rows if kind in ("loss", "val_loss"))  # by chance: log 22
    assert all(p.dtype == DTYPES[precision] for p in run.module.parameters())


@pytest.mark.parametrize("precision", DTYPES)
def test_averages_are_taken_in_single_precision_or_better(tmp_path: Path, precision: Any) -> None:
    module, history = net(), History()
    averaging = NonMonotonicAveraging("rising")
    fit(tmp_path, module, averaging, history, precision=precision, max_epochs=8)
    assert averaging.began_epoch == 2
    exact = torch.promote_types(DTYPES[precision], torch.float32)
    for name, seen in history.validated.items():
        mean = torch.stack([moment[name].to(exact) for moment in history.trained[15:]]).mean(0)
        # At most one rounding to the weights' own precision apart: 25 roundings would show.
        torch.testing.assert_close(seen, mean.to(seen.dtype), rtol=torch.finfo(seen.dtype).eps, atol=1e-7)
        assert torch.equal(weights(module)[name], seen)


@pytest.mark.parametrize("optimizer", ["adam", "sntasgd"])
@pytest.mark.parametrize("precision", DTYPES)
def test_a_resumed_run_in_any_precision_is_the_uninterrupted_one(
    tmp_path: Path, precision: Any, optimizer: str
) -> None:
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = end_state(fit(tmp_path, net(optimizer), *ours(optimizer), save, precision=precision))
    trainer = make_trainer(tmp_path, ours(optimizer), precision=precision)
    trainer.fit(net(optimizer, seed=2), *loaders(), ckpt_path=str(tmp_path / "epoch=3.ckpt"))
    assert differences(end_state(trainer)["state_dict"], whole["state_dict"]) == []
    assert differences(end_state(trainer)["optimizer_states"], whole["optimizer_states"]) == []


# ------------------------------------------------------------------------------------------------------ loss scaling


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "sntasgd"])
def test_skipped_steps_are_not_steps(tmp_path: Path, optimizer: str) -> None:
    history = History()
    sparse, *averaging = ours(optimizer, update_every_n_steps=6)
    watch = Watch(sparse)
    module = overflows(optimizer)
    trainer = fit(tmp_path, module, watch, history, sparse, *averaging, plugins=[ScaledOnCPU()])
    assert watch.batches == 30
    for first in range(0, 30, 5):  # the step that would have made all weights NaN was skipped
        for name, weight in history.trained[first].items():
            assert torch.equal(weight, history.trained[first + 1][name])
    assert [update["step"] for update in sparse.updates] == [0, 6, 12, 18]
    state = trainer.optimizers[0].state_dict()
    if optimizer == "adam":
        assert {int(one["step"]) for one in state["state"].values()} == {24}
    if optimizer == "sntasgd":
        assert state["averaging"]["steps"] == 24


def test_skipped_steps_have_no_share_in_averages(tmp_path: Path) -> None:
    history, averaging = History(), NonMonotonicAveraging("rising")
    fit(tmp_path, overflows("sntasgd"), history, averaging, plugins=[ScaledOnCPU()])
    assert averaging.began_epoch == 2
    taken = [moment for batch, moment in enumerate(history.trained) if batch >= 15 and batch % 5 != 1]
    for name, seen in history.validated.items():
        mean = torch.stack([moment[name] for moment in taken]).mean(0)
        torch.testing.assert_close(seen, mean, rtol=1e-5, atol=1e-6)


def test_a_fused_optimizer_is_called_for_a_skipped_step_too_and_weights_stay_sparse(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5)
    watch = Watch(sparse)
    fit(
        tmp_path, overflows(lambda p: torch.optim.AdamW(p, lr=0.01, fused=True)), watch, sparse, plugins=[ScaledOnCPU()]
    )
    assert watch.batches == 30
    assert [update["step"] for update in sparse.updates] == [0, 5, 10, 15, 20, 25]


# ----------------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "sntasgd"])
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", *DTYPES])
def test_on_a_gpu_weights_are_as_sparse_and_the_draw_is_the_same_on_every_one(
    tmp_path: Path, precision: Any, optimizer: str
) -> None:
    def run() -> tuple[Watch, list[dict[str, Any]]]:
        sparse, *averaging = ours(optimizer)
        watch = Watch(sparse)
        options = {"accelerator": "gpu", "devices": 1, "precision": precision}
        fit(tmp_path, net(optimizer), watch, sparse, *averaging, max_epochs=5, **options)
        assert all(mask.dtype == parameter.dtype for parameter, mask in sparse.topology.masks.items())
        return watch, sparse.updates

    (watch, updates), (_, again) = run(), run()
    assert watch.counts == {"lstm.weight_ih_l0": 36, "lstm.weight_hh_l0": 72, "linear.weight": 6}
    assert watch.batches == 25
    assert updates[0] == again[0]
