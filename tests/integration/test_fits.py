"""One fit after another, evaluation in between, and copies: what a callback and a module carry from run to run."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, loaders, make_trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from toy_runs import Watch, fit, net, weights

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback

pytestmark = QUIET


def live(sparse: SelfishSparseCallback) -> dict[str, Tensor]:
    """Copies of the masks by name."""
    masks = sparse.topology.masks
    return {name: masks[parameter].clone() for name, parameter in sparse.topology.parameters.items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def masked(module: pl.LightningModule, sparse: SelfishSparseCallback) -> bool:
    """Whether the module's zeros are where the topology has them."""
    return all(torch.equal(weights(module)[name] != 0, mask == 1) for name, mask in live(sparse).items())


# ---------------------------------------------------------------------------------------------- one fit after another


def test_an_update_that_waited_for_gradients_does_not_come_in_the_next_run(tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 1:  # the update is due, and its optimizer step not yet taken
                raise RuntimeError("the machine is gone")

    sparse = SelfishSparseCallback(0.5, growth="gradient")
    with pytest.raises(RuntimeError, match="the machine is gone"):
        fit(tmp_path, net("adam"), sparse, Fails(), max_epochs=2, accumulate_grad_batches=2)
    fit(tmp_path, net("adam"), sparse, max_epochs=1)
    assert [update["update"] for update in sparse.updates] == [0]


def test_a_trainer_with_more_epochs_goes_on_with_topology_and_schedule(tmp_path: Path) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5, schedule="linear", prune_rate=0.5, min_prune_rate=0.0)
    watch = Watch(sparse)
    trainer = fit(tmp_path, module, watch, sparse, max_epochs=2)
    trained, masks, topology = weights(module), live(sparse), sparse.topology
    trainer.fit_loop.max_epochs = 4

    class AtStart(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert same(weights(pl_module), trained)
            assert same(live(sparse), masks)

    trainer.callbacks.append(AtStart())
    trainer.fit(module, *loaders())
    assert sparse.topology is topology
    assert watch.batches == 20
    assert [update["epoch"] for update in sparse.updates] == [0, 1, 2, 3]
    assert [update["step"] for update in sparse.updates] == [0, 5, 10, 15]
    # Of two epochs the first is half; of four, two are half and three are three quarters.
    assert [update["rate"] for update in sparse.updates[1:]] == pytest.approx([0.25, 0.25, 0.125])
    trainer.fit(module, *loaders())  # with nothing left to do
    assert len(sparse.updates) == 4
    assert masked(module, sparse)


def test_a_new_trainer_goes_on_with_the_topology_and_begins_a_new_schedule(tmp_path: Path) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5)
    fit(tmp_path, module, sparse, max_epochs=3)
    masks, rates = live(sparse), [update["rate"] for update in sparse.updates]
    seen: list[bool] = []

    class AtStart(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 0:
                seen.append(same(live(sparse), masks))

    fit(tmp_path, module, sparse, AtStart(), max_epochs=3)
    assert seen == [True] * 5
    assert [update["rate"] for update in sparse.updates] == rates
    assert [update["update"] for update in sparse.updates] == [0, 3, 4]  # new random choices, not those of run one
    assert masked(module, sparse)


def test_what_is_unfrozen_between_two_fits_stays_dense_and_the_rest_keeps_its_topology(tmp_path: Path) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5, update_every_n_epochs=None)
    module.lstm.weight_hh_l0.requires_grad_(False)
    fit(tmp_path, module, sparse, max_epochs=2)
    masks = live(sparse)
    module.lstm.weight_hh_l0.requires_grad_(True)
    module.linear.weight.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"lstm\.weight_hh_l0 could not be sparse when the topology was made"):
        fit(tmp_path, module, sparse, max_epochs=2)
    assert same(live(sparse), masks)
    assert masked(module, sparse)
    assert module.lstm.weight_hh_l0.count_nonzero() == module.lstm.weight_hh_l0.numel()


@pytest.mark.parametrize("tested_before", [False, True])
def test_a_callback_draws_a_new_topology_for_a_new_module(tmp_path: Path, tested_before: bool) -> None:
    def run(sparse: SelfishSparseCallback) -> End:
        module = net("adam", seed=2)
        fit(tmp_path, module, sparse, max_epochs=3)
        return weights(module), sparse.updates

    used = SelfishSparseCallback(0.5)
    first = net("adam")
    trainer = fit(tmp_path, first, used, max_epochs=3)
    if tested_before:
        trainer.save_checkpoint(tmp_path / "first.ckpt")
        trainer.test(first, loaders()[1], ckpt_path=str(tmp_path / "first.ckpt"), verbose=False)
    (after, updates), (expected, expected_updates) = run(used), run(SelfishSparseCallback(0.5))
    assert same(after, expected)
    assert updates == expected_updates


def test_a_trainer_goes_on_with_a_new_module(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, schedule="linear", prune_rate=0.5, min_prune_rate=0.0)
    trainer = fit(tmp_path, net("adam"), sparse, max_epochs=2)
    trainer.fit_loop.max_epochs = 4
    module = net("adam", seed=2)
    trainer.fit(module, *loaders())
    assert masked(module, sparse)
    assert [(update["update"], update["epoch"], update["step"]) for update in sparse.updates] == [
        (0, 2, 10),
        (1, 3, 15),
    ]
    assert sparse.updates[1]["rate"] == pytest.approx(0.125)


def test_a_dense_checkpoint_is_resumed_sparse_with_the_rest_of_the_schedule(tmp_path: Path) -> None:
    trainer = fit(tmp_path, net("adam"), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    module = net("adam", seed=2)
    sparse = SelfishSparseCallback(0.5, schedule="linear", prune_rate=0.5, min_prune_rate=0.0)
    fit_from = make_trainer(tmp_path, [sparse], max_epochs=4)
    fit_from.fit(module, *loaders(), ckpt_path=str(tmp_path / "dense.ckpt"))
    assert masked(module, sparse)
    assert [(update["epoch"], update["step"]) for update in sparse.updates] == [(2, 10), (3, 15)]
    assert sparse.updates[1]["rate"] == pytest.approx(0.125)


# ------------------------------------------------------------------------------------------------ evaluation between


End = tuple[dict[str, Tensor], list[dict[str, Any]]]  # weights, and the updates that led to them


def gone_on(trainer: pl.Trainer, module: pl.LightningModule, sparse: SelfishSparseCallback, max_epochs: int) -> End:
    trainer.fit_loop.max_epochs = max_epochs
    torch.manual_seed(0)
    trainer.fit(module, *loaders())
    return weights(module), sparse.updates


def check_equal_ends(one: End, other: End) -> None:
    (plain, updates), (evaluated, expected) = one, other
    assert same(plain, evaluated)
    assert updates == expected


@pytest.mark.parametrize("how", ["validate", "test", "predict"])
def test_evaluation_between_fits_changes_nothing(tmp_path: Path, how: str) -> None:
    def run(evaluate: bool) -> End:
        module, sparse = net(), SelfishSparseCallback(0.5)
        trainer = fit(tmp_path, module, sparse, NonMonotonicAveraging("rising"))
        if evaluate:
            before = weights(module)
            options = {} if how == "predict" else {"verbose": False}
            module.forward = lambda batch: module.loss(batch)
            getattr(trainer, how)(module, loaders()[1], **options)
            assert same(weights(module), before)
        return gone_on(trainer, module, sparse, 10)

    check_equal_ends(run(False), run(True))


def test_a_fit_after_the_test_of_a_checkpoint_goes_on_from_its_weights_and_topology(tmp_path: Path) -> None:
    module = net()
    sparse = SelfishSparseCallback(0.5, schedule="linear", prune_rate=0.5, min_prune_rate=0.0)
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer = fit(tmp_path, module, sparse, NonMonotonicAveraging("rising"), save, max_epochs=6)
    assert trainer.optimizers[0].averaging
    end = live(sparse)
    trainer.test(module, loaders()[1], ckpt_path=str(tmp_path / "epoch=3.ckpt"), verbose=False)
    saved = torch.load(tmp_path / "epoch=3.ckpt", weights_only=True)
    assert same(weights(module), saved["state_dict"])
    seen: list[bool] = []

    class AtStart(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(same(weights(pl_module), saved["state_dict"]) and masked(pl_module, sparse))
            seen.append(not same(live(sparse), end))

    watch = Watch(sparse)
    trainer.callbacks += [AtStart(), watch]
    trainer.fit_loop.max_epochs = 8
    trainer.fit(module, *loaders())
    assert seen == [True, True]
    assert watch.batches == 10
    assert not trainer.optimizers[0].averaging  # new optimizers wait for the trigger again
    # The topology is that of the checkpoint, and its history; the schedule is the Trainer's.
    assert [update["epoch"] for update in sparse.updates] == [0, 1, 2, 3, 6, 7]
    assert [update["step"] for update in sparse.updates][-2:] == [30, 35]
    assert sparse.updates[-1]["rate"] == pytest.approx(0.5 / 8)
    assert masked(module, sparse)


@pytest.mark.parametrize("how", ["validate", "test"])
def test_a_checkpoint_that_is_evaluated_brings_its_topology_and_updates_to_the_module_of_the_fit(
    tmp_path: Path, how: str
) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5)
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer = fit(tmp_path, module, sparse, save, max_epochs=4)
    end, topology = live(sparse), sparse.topology
    for epoch in (1, 3, 2):
        path = tmp_path / f"epoch={epoch}.ckpt"
        getattr(trainer, how)(module, loaders()[1], ckpt_path=str(path), verbose=False)
        saved = torch.load(path, weights_only=True)["callbacks"]["SelfishSparseCallback"]
        assert sparse.topology is topology
        assert masked(module, sparse)
        assert same(live(sparse), end) == (epoch == 3)
        assert sparse.updates == saved["updates"]
        assert len(sparse.updates) == topology.updates + 1 == epoch + 1


def test_the_checkpoint_of_another_module_leaves_topology_and_updates_as_they_are(tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, filename="other")
    fit(tmp_path, net("adam"), SelfishSparseCallback(0.5, seed=1), save, max_epochs=1)

    def run(evaluate: bool) -> End:
        module, sparse = net("adam"), SelfishSparseCallback(0.5)
        trainer = fit(tmp_path, module, sparse, max_epochs=3)
        if evaluate:
            before, updates = live(sparse), list(sparse.updates)
            path = str(tmp_path / "other.ckpt")
            trainer.validate(net("adam"), loaders()[1], ckpt_path=path, verbose=False)
            assert same(live(sparse), before)
            assert sparse.updates == updates
            assert len(updates) == 3
        return gone_on(trainer, module, sparse, 5)

    check_equal_ends(run(False), run(True))


def test_a_checkpoint_with_other_sparse_tensors_can_be_evaluated(tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, filename="other")
    fit(tmp_path, net("adam"), SelfishSparseCallback(0.5, include="linear.*"), save, max_epochs=1)
    module, sparse = net("adam"), SelfishSparseCallback(0.5)
    trainer = fit(tmp_path, module, sparse, max_epochs=2)
    before, updates = live(sparse), list(sparse.updates)
    trainer.test(module, loaders()[1], ckpt_path=str(tmp_path / "other.ckpt"), verbose=False)
    assert same(live(sparse), before)
    assert sparse.updates == updates


# ------------------------------------------------------------------------------------------------------------ copies


def reachable(root: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield what an object holds, at any depth."""
    seen = set() if seen is None else seen
    if id(root) in seen:
        return
    seen.add(id(root))
    yield root
    if isinstance(root, MethodType):
        yield root.__self__
    parts = root.values() if isinstance(root, dict) else root if isinstance(root, (list, tuple, set)) else ()
    for part in [*parts, *vars(root).values()] if hasattr(root, "__dict__") else parts:
        yield from reachable(part, seen)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))])
def test_a_copy_of_a_callback_has_its_topology_and_nothing_of_the_module(tmp_path: Path, copied: Any) -> None:
    module, sparse, averaging = net(), SelfishSparseCallback(0.5), NonMonotonicAveraging("rising")
    fit(tmp_path, module, sparse, averaging, max_epochs=5)
    copies = [copied(callback) for callback in (sparse, averaging)]
    for callback in copies:
        assert not any(isinstance(part, (nn.Module, nn.Parameter, pl.Trainer)) for part in reachable(callback))
    assert copies[1].began_epoch == averaging.began_epoch == 2
    assert copies[0].updates == sparse.updates
    other = copy.deepcopy(module)
    fit(tmp_path, other, *copies, max_epochs=1)
    assert same(live(copies[0]), live(sparse))
    assert masked(module, sparse)


def test_copies_made_before_a_fit_train_alike(tmp_path: Path) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5, seed=3)
    twin, twin_sparse = copy.deepcopy(module), copy.deepcopy(sparse)
    fit(tmp_path, module, sparse, max_epochs=3)
    fit(tmp_path, twin, twin_sparse, max_epochs=3)
    assert same(weights(module), weights(twin))
    assert sparse.updates == twin_sparse.updates


def test_a_copy_made_during_a_fit_is_a_module_of_its_own(tmp_path: Path) -> None:
    module, copies = net(), []

    class Copies(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            copies.append((copy.deepcopy(pl_module), weights(pl_module)))

    trainer = fit(tmp_path, module, SelfishSparseCallback(0.5), NonMonotonicAveraging("rising"), Copies())
    assert trainer.optimizers[0].averaging
    for twin, then in copies:
        assert same(dict(twin.state_dict()), then)
    twin, then = copies[-1]
    assert not same(then, weights(module))  # w, while the module ends with its averages
    sparse = SelfishSparseCallback(0.5, allocation="nonzero")
    trainer = fit(tmp_path, twin, sparse, NonMonotonicAveraging("rising"), max_epochs=5)
    assert trainer.optimizers[0].averaging
    assert masked(twin, sparse)
    assert same(dict(module.state_dict()), weights(module))


# ----------------------------------------------------------------------------------------- weights of another topology


@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "from_checkpoint"])
def test_sparse_weights_of_another_epoch_are_refused_and_not_masked(tmp_path: Path, fresh: bool) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5)
    every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1)
    fit(tmp_path, module, sparse, every, max_epochs=3, enable_checkpointing=True)
    weights_of_first = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    module.load_state_dict(weights_of_first)
    again = SelfishSparseCallback.from_checkpoint(tmp_path / "epoch=2.ckpt") if fresh else sparse
    with pytest.raises(MisconfigurationException, match=r"The module has weights of another topology: .* be lost"):
        fit(tmp_path, module, again, max_epochs=1)
    assert all(torch.equal(weights(module)[name], weight) for name, weight in weights_of_first.items())
    right = SelfishSparseCallback.from_checkpoint(tmp_path / "epoch=0.ckpt", update_every_n_epochs=None)
    fit(tmp_path, module, right, max_epochs=1)
    assert sum(int(w.count_nonzero()) for n, w in weights(module).items() if n in live(right)) == 114


def test_dense_weights_are_masked_with_the_topology_there_is(tmp_path: Path) -> None:
    """Training again from the beginning, with the topology that was found."""
    sparse = SelfishSparseCallback(0.5, update_every_n_epochs=None)
    module = net("adam")
    initial = copy.deepcopy(module.state_dict())
    fit(tmp_path, module, sparse, max_epochs=2)
    found = live(sparse)
    module.load_state_dict(initial)
    fit(tmp_path, module, sparse, max_epochs=1)
    assert same(found, live(sparse))
    assert masked(module, sparse)
