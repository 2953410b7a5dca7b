"""Training that starts from sparse weights: their non-zeros are the topology."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, Recipe, Toy, loaders, make_trainer, rest_differs, toy
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from toy_runs import Watch

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.sparsity.rules.schedules import PruneRate

pytestmark = QUIET


def nonzeros(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight != 0 for name, weight in weights.items() if weight.dim() > 1}


def checkpoint_of_a_dense_run(folder: Path) -> Path:
    trainer = make_trainer(folder, [ModelCheckpoint(folder, filename="dense", save_weights_only=True)], max_epochs=2)
    trainer.fit(toy("adam"), *loaders())
    return folder / "dense.ckpt"


def checkpoint_of_ours(folder: Path) -> Path:
    Recipe().run(folder, ModelCheckpoint(folder, filename="ours", save_weights_only=True))
    return folder / "ours.ckpt"


def prune(weights: dict[str, Tensor], shares: dict[str, float]) -> None:
    """Set the smallest weights of each tensor to zero, a share of its own of each."""
    for name, share in shares.items():
        magnitudes = weights[name].abs().flatten()
        weights[name][weights[name].abs() <= magnitudes.kthvalue(int(share * len(magnitudes))).values] = 0.0


class AtStart(pl.Callback):
    """Takes down the weights with which training starts."""

    weights: dict[str, Tensor]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}


def train_from(weights: dict[str, Tensor], folder: Path, **options: Any) -> tuple[Toy, SelfishSparseCallback]:
    """Train a new toy with these weights, make sure that it starts with them, and that it stays as sparse."""
    module = toy(seed=3)
    module.load_state_dict(weights)
    sparse, start = SelfishSparseCallback(allocation="nonzero", prune_rate=0.5, **options), AtStart()
    make_trainer(folder, [sparse, start, Watch(sparse)], max_epochs=3).fit(module, *loaders())
    assert all(torch.equal(start.weights[name], weight) for name, weight in weights.items())
    return module, sparse


@pytest.mark.filterwarnings("ignore:SNTASGD starts to average when its trigger fires, and no callback feeds it")
@pytest.mark.parametrize("make_checkpoint", [checkpoint_of_a_dense_run, checkpoint_of_ours])
def test_training_goes_on_from_the_nonzeros_of_a_checkpoint(tmp_path: Path, make_checkpoint: Any) -> None:
    weights = torch.load(make_checkpoint(tmp_path), weights_only=True)["state_dict"]
    if make_checkpoint is checkpoint_of_a_dense_run:
        prune(weights, {"lstm.weight_ih_l0": 0.25, "lstm.weight_hh_l0": 0.75, "linear.weight": 0.5})
    live = nonzeros(weights)
    assert any(not mask.all() for mask in live.values())

    module, sparse = train_from(weights, tmp_path, update_every_n_epochs=None)
    for name, parameter in sparse.topology.parameters.items():
        assert torch.equal(sparse.topology.masks[parameter] == 1, live[name])
        assert not torch.equal(parameter, weights[name]), f"{name} has not been trained"

    module, sparse = train_from(weights, tmp_path)
    counts = {name: int(mask.sum()) for name, mask in live.items()}
    updates = sparse.updates
    assert [sum(update["live"][name].values()) for update in updates for name in counts] == [*counts.values()] * 3
    after = nonzeros(dict(module.named_parameters()))
    assert any(not torch.equal(after[name], live[name]) for name in counts), "the topology has not moved"


def test_fine_tuning_starts_with_the_topology_of_a_checkpoint(tmp_path: Path) -> None:
    Recipe().run(tmp_path, ModelCheckpoint(tmp_path, filename="whole"))
    saved = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    module, sparse = toy("adam"), SelfishSparseCallback.from_checkpoint(tmp_path / "whole.ckpt", prune_rate=0.3)
    module.load_state_dict(saved["state_dict"])
    start = AtStart()
    make_trainer(tmp_path, [sparse, start], max_epochs=3).fit(module, *loaders())
    assert all(torch.equal(start.weights[name], weight) for name, weight in saved["state_dict"].items())
    first, *updates = sparse.updates
    assert first["live"] == saved["callbacks"]["SelfishSparseCallback"]["updates"][-1]["live"]
    rate = PruneRate(0.3, 0.005, "cosine")
    assert [update["rate"] for update in updates] == [rate.at(1 / 3), rate.at(2 / 3)]
    asked = saved["callbacks"]["SelfishSparseCallback"]["options"]["sparsity"]
    assert f"sparsity={asked}," in repr(sparse)  # and not what came of it by rounding
    with pytest.raises(ValueError, match=r"run with SelfishSparseCallback, got .*ours\.ckpt, which has no topology"):
        SelfishSparseCallback.from_checkpoint(checkpoint_of_ours(tmp_path))
    for name, value in {
        "sparsity": 0.8,
        "allocation": "snip",
        "initial_sparsity": 0.1,
        "initial_scale": "none",
    }.items():
        with pytest.raises(ValueError, match=f"Expected no `{name}`: the topology is that of the checkpoint"):
            SelfishSparseCallback.from_checkpoint(tmp_path / "whole.ckpt", **{name: value})


def test_fine_tuning_keeps_the_sparsity_that_a_ramp_had_come_to(tmp_path: Path) -> None:
    """Of the checkpoint's moment: neither the one that its run began with, nor the one that it was to reach."""
    ramp = SelfishSparseCallback(0.8, initial_sparsity=0.0, growth=None, prune_rate=0.0, min_prune_rate=0.0)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
    make_trainer(tmp_path, [ramp, saver], max_epochs=4).fit(toy("adam"), *loaders())
    saved = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    live = saved["callbacks"]["SelfishSparseCallback"]["updates"][-1]["live"]
    counts = {name: sum(gates.values()) for name, gates in live.items()}
    module, sparse = toy("adam"), SelfishSparseCallback.from_checkpoint(tmp_path / "epoch=1.ckpt", prune_rate=0.3)
    module.load_state_dict(saved["state_dict"])
    make_trainer(tmp_path, [sparse, ModelCheckpoint(tmp_path, filename="tuned")], max_epochs=3).fit(module, *loaders())
    assert len(sparse.updates) == 3
    assert all({n: sum(gates.values()) for n, gates in u["live"].items()} == counts for u in sparse.updates)
    sparsity = 1.0 - sum(counts.values()) / sparse.topology.total_weights
    assert 0.1 < sparsity < 0.7
    options = torch.load(tmp_path / "tuned.ckpt", weights_only=True)["callbacks"]["SelfishSparseCallback"]["options"]
    assert options["sparsity"] == sparsity
    assert f"sparsity={sparsity}" in repr(sparse)


def test_snip_allocates_in_the_checkpoint_of_a_dense_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [ModelCheckpoint(tmp_path, filename="dense")], max_epochs=2)
    trainer.fit(toy("adam"), *loaders())
    module, sparse = toy("adam"), SelfishSparseCallback(0.5, allocation="snip", update_every_n_epochs=None)
    trainer = make_trainer(tmp_path, [sparse], max_epochs=3)
    trainer.fit(module, *loaders(), ckpt_path=tmp_path / "dense.ckpt")
    assert sparse.topology.live_weights == round(0.5 * sparse.topology.total_weights)
    for parameter, mask in sparse.topology.masks.items():
        assert torch.equal(parameter != 0, mask == 1)


def test_averages_of_a_dense_run_are_sparse_from_the_start(tmp_path: Path) -> None:
    def averaging() -> NonMonotonicAveraging:
        return NonMonotonicAveraging("val_loss", restart_epochs=[1])

    trainer = make_trainer(tmp_path, [averaging()], max_epochs=2)
    trainer.fit(toy(), *loaders())
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    module, sparse = toy(), SelfishSparseCallback(0.5, update_every_n_epochs=None)
    saver = ModelCheckpoint(tmp_path, filename="sparse")
    trainer = make_trainer(tmp_path, [averaging(), sparse, saver], max_epochs=3)
    trainer.fit(module, *loaders(), ckpt_path=tmp_path / "dense.ckpt")
    saved = torch.load(tmp_path / "sparse.ckpt", weights_only=True)["state_dict"]
    for name, parameter in sparse.topology.parameters.items():
        mask = sparse.topology.masks[parameter] == 1
        assert torch.equal(saved[name] != 0, mask)
        assert torch.equal(parameter != 0, mask)


def test_a_resumed_run_has_its_topology_and_not_its_present_nonzeros(tmp_path: Path) -> None:
    recipe = Recipe("text", sparse={"allocation": "nonzero"})
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=7)
    pruned = recipe.module()
    with torch.no_grad():
        prune(dict(pruned.named_parameters()), {"network.decoder.weight": 0.6, "network.embedding.weight": 0.4})

    def module(self: Recipe, seed: int = 1) -> pl.LightningModule:
        made = language(self, seed)
        made.load_state_dict(pruned.state_dict())
        return made

    language = Recipe.module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "module", module)
        whole = recipe.run(tmp_path, saver)
        for step in (7, 14, 21):
            path = tmp_path / f"step={step}.ckpt"
            topology = torch.load(path, weights_only=True)["callbacks"]["SelfishSparseCallback"]["topology"]
            assert topology["updates"] == step // 6
            assert not rest_differs(whole, recipe.run(tmp_path, ckpt_path=path))


def test_an_empty_tensor_is_named(tmp_path: Path) -> None:
    weights = toy().state_dict()
    weights["linear.weight"].zero_()
    with pytest.raises(ValueError, match=r"no live weight: linear\.weight \(2, 6\)"):
        train_from(weights, tmp_path)
