"""What SelfishSparseCallback does in a plain run: masks, updates, records, logs and messages."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, loaders, make_trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from toy_runs import OPTIMIZERS, MemoryLogger, Net, Watch, fit, net, weights

from lightning_sparse_rnn import SelfishSparseCallback
from lightning_sparse_rnn.sparsity import SparseTopology, TopologyUpdate

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:SNTASGD starts to average when its trigger fires")]


def cosine(share: float, first: float = 0.5, last: float = 0.005) -> float:
    """The paper's rate after a share of all optimizer steps."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


# ------------------------------------------------------------------------------------------------------- optimizers


@pytest.mark.parametrize("redistribution", ["none", "gates"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_inactive_weights_are_zero_and_counts_exact_after_every_step(
    tmp_path: Path, optimizer: str, redistribution: str
) -> None:
    sparse = SelfishSparseCallback(0.3, redistribution=redistribution)
    watch = Watch(sparse)
    module = net(optimizer)
    fit(tmp_path, module, watch, sparse, max_epochs=3)
    assert watch.batches == 15
    assert sparse.topology.updates == 2
    matrices = {name: parameter.numel() for name, parameter in module.named_parameters() if parameter.dim() > 1}
    assert watch.counts == {name: round(0.7 * size) for name, size in matrices.items()}


def test_a_run_without_an_update_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(tmp_path, net("sgd"), SelfishSparseCallback(0.5), max_epochs=1)
        assert caplog.text.count("The topology was never updated") == 1
        fit(tmp_path, net("sgd"), SelfishSparseCallback(0.5), max_epochs=2)
        fit(tmp_path, net("sgd"), SelfishSparseCallback(0.5, update_every_n_epochs=None), max_epochs=1)
        assert caplog.text.count("The topology was never updated") == 1


def test_options_may_be_numpys_numbers_and_stay_out_of_checkpoints(tmp_path: Path) -> None:
    values = np.linspace(0.5, 0.9, 5, dtype=np.float32)
    sparse = SelfishSparseCallback(values[2], initial_sparsity=values[0], prune_rate=values[1], sparsity_reached_at=0.4)
    trainer = fit(tmp_path, net("sgd"), sparse, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "file.ckpt")
    assert torch.load(tmp_path / "file.ckpt", weights_only=True)["global_step"] == 10


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_fixed_topology_trains_as_a_loop_that_masks_after_each_step(tmp_path: Path, optimizer: str) -> None:
    module = net(optimizer)
    module.dropout.p = 0.0
    by_hand = copy.deepcopy(module)
    _, batches = loaders()  # the unshuffled ones
    sparse = SelfishSparseCallback(0.5, update_every_n_epochs=None, seed=7)
    make_trainer(tmp_path, [sparse], max_epochs=4).fit(module, batches, batches)

    topology = SparseTopology(by_hand, 0.5, seed=7)
    reference = by_hand.configure_optimizers()
    for batch in [*batches] * 4:
        reference.zero_grad()
        by_hand.loss(batch).backward()
        reference.step()
        topology.apply_masks()
    expected = weights(by_hand)
    assert [name for name, weight in weights(module).items() if not torch.equal(weight, expected[name])] == []


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "adamw"])
def test_an_optimizer_forgets_weights_that_die_or_are_born(
    tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TopologyUpdate] = []
    update = SparseTopology.update
    monkeypatch.setattr(
        SparseTopology, "update", lambda topology, rate, **_: (made.append(update(topology, rate)), made[-1])[1]
    )
    remembered: dict[str, list[str]] = {}

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            if len(made) == 1 and not remembered:
                for name, parameter in sparse.topology.parameters.items():
                    old = (sparse.topology.masks[parameter] == 1) & ~made[0].born[parameter]
                    assert 0 < int(old.sum()) < old.numel()
                    for key, value in trainer.optimizers[0].state[parameter].items():
                        if value.shape == old.shape:
                            assert torch.equal(value != 0, old), f"{key} of {name}"
                            remembered.setdefault(name, []).append(key)

    sparse = SelfishSparseCallback(0.5)
    fit(tmp_path, net(optimizer), Look(), sparse, max_epochs=2)
    keys = {"momentum": ["momentum_buffer"], "adam": ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]}
    assert set(remembered) == set(sparse.topology.parameters)
    for found in remembered.values():
        assert found == keys.get(optimizer, ["exp_avg", "exp_avg_sq"])


def test_the_module_stays_the_dense_module(tmp_path: Path) -> None:
    module = net("adam")
    names, types = list(module.state_dict()), {name: type(part) for name, part in module.named_modules()}
    fit(tmp_path, module, SelfishSparseCallback(0.5), max_epochs=1)
    assert list(module.state_dict()) == names
    assert {name: type(part) for name, part in module.named_modules()} == types


# ----------------------------------------------------------------------------------------------------------- updates


@pytest.mark.parametrize(
    ("options", "epochs", "steps"),
    [
        ({}, [1, 2, 3, 4, 5], [5, 10, 15, 20, 25]),
        ({"update_every_n_epochs": 2}, [2, 4], [10, 20]),
        ({"update_every_n_steps": 7}, [1, 2, 4, 5], [7, 14, 21, 28]),
        ({"update_every_n_epochs": 3, "update_every_n_steps": 10}, [2, 4], [10, 20]),
        ({"update_every_n_epochs": None}, [], []),
    ],
)
def test_updates_come_between_epochs_or_steps_and_never_after_the_last(
    tmp_path: Path, options: dict[str, Any], epochs: list[int], steps: list[int]
) -> None:
    sparse = SelfishSparseCallback(0.5, **options)
    fit(tmp_path, net("adam"), sparse)
    first, *updates = sparse.updates
    assert (first["update"], first["epoch"], first["step"], first["rate"]) == (0, 0, 0, 0.0)
    assert [update["epoch"] for update in updates] == epochs
    assert [update["step"] for update in updates] == steps
    assert [update["update"] for update in updates] == list(range(1, len(steps) + 1))
    assert [update["rate"] for update in updates] == pytest.approx([cosine(step / 30) for step in steps])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("cosine", [cosine(1 / 4), cosine(1 / 2), cosine(3 / 4)]), ("linear", [0.4, 0.3, 0.2]), ("constant", [0.5] * 3)],
)
def test_the_rate_follows_its_schedule(tmp_path: Path, schedule: str, rates: list[float]) -> None:
    sparse = SelfishSparseCallback(0.5, schedule=schedule, min_prune_rate=0.1)
    fit(tmp_path, net("adam"), sparse, max_epochs=4)
    if schedule == "cosine":
        rates = [0.1 + (rate - 0.005) * 0.4 / 0.495 for rate in rates]
    assert [update["rate"] for update in sparse.updates[1:]] == pytest.approx(rates)


def test_updates_record_what_was_pruned_regrown_and_lives(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5)
    fit(tmp_path, net("adam"), sparse, max_epochs=4)
    assert json.loads(json.dumps(sparse.updates)) == sparse.updates
    sizes = {"lstm.weight_ih_l0": 72, "lstm.weight_hh_l0": 144, "linear.weight": 12}
    for before, update in zip(sparse.updates, sparse.updates[1:], strict=False):
        for name, size in sizes.items():
            pruned = sum(update["pruned"][name].values())
            assert pruned == sum(update["regrown"][name].values()) == math.ceil(update["rate"] * size / 2)
            for gate, live in update["live"][name].items():
                assert live == before["live"][name][gate] - update["pruned"][name][gate] + update["regrown"][name][gate]
    assert sparse.updates[-1]["live"] == sparse.topology.live_per_gate()


def test_each_update_is_logged_with_exact_counts_and_the_density_of_every_gate(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5)
    logger = MemoryLogger()
    fit(tmp_path, net("adam"), sparse, max_epochs=3, logger=logger, log_every_n_steps=1)
    rows = [(step, metrics) for step, metrics in logger.rows if "sparsity/prune_rate" in metrics]
    assert [step for step, _ in rows] == [5, 10]
    for (_, metrics), update in zip(rows, sparse.updates[1:], strict=True):
        assert metrics["epoch"] == update["epoch"]
        assert metrics["sparsity/prune_rate"] == update["rate"]
        assert metrics["sparsity/live_weights"] == 114
        pruned = sum(sum(gates.values()) for gates in update["pruned"].values())
        assert metrics["sparsity/share_replaced"] == pruned / 114
        densities = {name: value for name, value in metrics.items() if name.startswith("density/")}
        assert densities == {
            f"density/{name}/{gate}": live / sparse.topology.gate_sizes[name][gate]
            for name, gates in update["live"].items()
            for gate, live in gates.items()
        }
        assert len(densities) == 9


# ---------------------------------------------------------------------------------------------- what is made sparse


def test_frozen_weights_stay_dense_and_as_they_are(tmp_path: Path) -> None:
    module = net(lambda parameters: torch.optim.SGD((p for p in parameters if p.requires_grad), lr=0.1))
    module.linear.requires_grad_(False)
    before = module.linear.weight.clone()
    sparse = SelfishSparseCallback(0.5)
    fit(tmp_path, module, sparse, max_epochs=2)
    assert list(sparse.topology.parameters) == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert torch.equal(module.linear.weight, before)


def test_weights_that_no_optimizer_trains_stay_dense_and_are_named(tmp_path: Path) -> None:
    module = Net(lambda parameters: torch.optim.SGD(module.lstm.parameters(), lr=0.1))
    before = module.linear.weight.clone()
    sparse = SelfishSparseCallback(0.5)
    with pytest.warns(UserWarning, match=r"No optimizer trains linear\.weight: they stay dense"):
        fit(tmp_path, module, sparse, max_epochs=3)
    assert list(sparse.topology.parameters) == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert torch.equal(module.linear.weight, before)
    assert sparse.topology.updates == 2


def test_a_run_that_trains_nothing_sparse_is_refused(tmp_path: Path) -> None:
    module = Net(lambda parameters: torch.optim.SGD([module.linear.bias], lr=0.1))
    with pytest.raises(MisconfigurationException, match=r"they have none of: lstm\.weight_ih_l0, .*linear\.weight"):
        fit(tmp_path, module, SelfishSparseCallback(0.5), max_epochs=1)


def test_weights_that_are_sparse_already_are_pointed_out_unless_they_are_what_is_wanted(tmp_path: Path) -> None:
    module = net("adam")
    fit(tmp_path, module, SelfishSparseCallback(0.7), max_epochs=1)
    live = {name: weight != 0 for name, weight in weights(module).items() if weight.dim() > 1}
    with pytest.warns(UserWarning, match="70% of the module's weights are zero already"):
        fit(tmp_path, copy.deepcopy(module), SelfishSparseCallback(0.7, seed=1), max_epochs=1)
    keeps = SelfishSparseCallback(0.7, allocation="nonzero", update_every_n_epochs=None)
    fit(tmp_path, module, keeps, max_epochs=1)
    masks = keeps.topology.masks
    for name, parameter in keeps.topology.parameters.items():
        assert torch.equal(masks[parameter] == 1, live[name])


def test_nonzero_weights_of_a_dense_module_are_pointed_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="No weight of this module is zero, so with `allocation='nonzero'` all of"):
        fit(tmp_path, net("adam"), SelfishSparseCallback(0.9, allocation="nonzero"), max_epochs=1)


# ---------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 67}, r"Expected `sparsity` in \[0, 1\), got 67\. Did you mean 0\.67\?"),
        ({"sparsity": -0.1}, r"Expected `sparsity` in \[0, 1\), got -0\.1"),
        ({"prune_rate": 1.0}, r"Expected `prune_rate` in \[0, 1\), got 1\.0"),
        (
            {"prune_rate": 0.1, "min_prune_rate": 0.2},
            r"of at least `min_prune_rate`, at which it ends, got 0\.1 and 0\.2",
        ),
        ({"schedule": "stairs"}, r"stairs.*cosine"),
        ({"allocation": "even"}, r"even.*uniform"),
        ({"pruning": "age"}, r"age.*magnitude"),
        ({"growth": "hope"}, r"hope.*random"),
        ({"redistribution": "tensor"}, r"tensor.*gates"),
        ({"update_every_n_epochs": 0}, r"`update_every_n_epochs` to be a whole number of at least 1, got 0"),
        ({"update_every_n_steps": 1.5}, r"`update_every_n_steps` to be a whole number of at least 1, got 1\.5"),
    ],
)
def test_a_bad_option_is_refused_when_the_callback_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfishSparseCallback(**options)


def test_there_is_no_topology_before_a_fit() -> None:
    with pytest.raises(RuntimeError, match=r"made when a fit starts, .* call `trainer\.fit` first"):
        _ = SelfishSparseCallback(0.5).topology


class Stop(pl.Callback):
    """Ends the run after three epochs."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch == 2


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_that_needs_an_end_is_refused_in_a_run_without_one(tmp_path: Path, schedule: str) -> None:
    with pytest.raises(MisconfigurationException, match=rf"The {schedule} schedule .* set `max_epochs` or `max_steps`"):
        fit(tmp_path, net("adam"), SelfishSparseCallback(0.5, schedule=schedule), Stop(), max_epochs=-1)


def test_a_run_without_an_end_goes_with_a_constant_rate_or_a_fixed_topology(tmp_path: Path) -> None:
    constant = SelfishSparseCallback(0.5, schedule="constant", prune_rate=0.2)
    fit(tmp_path, net("adam"), constant, Stop(), max_epochs=-1)
    assert [update["rate"] for update in constant.updates] == [0.0, 0.2, 0.2]
    fixed = SelfishSparseCallback(0.5, update_every_n_epochs=None)
    fit(tmp_path, net("adam"), fixed, Stop(), max_epochs=-1)
    assert fixed.topology.updates == 0


@pytest.mark.filterwarnings("error:SNTASGD starts to average")
def test_a_trigger_that_nobody_feeds_is_pointed_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"no callback feeds it: add NonMonotonicAveraging\(monitor=\.\.\.\)"):
        fit(tmp_path, net("sntasgd"), SelfishSparseCallback(0.5), max_epochs=1)
