"""Every method of the comparison in a Trainer: exact counts, gradients of the right step, resumed as uninterrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning_runs import QUIET, Recipe, loaders, make_trainer, rest_differs
from mixed_precision import ScaledOnCPU, overflows
from process_runs import in_processes
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from toy_runs import Net, Watch, fit, net, weights

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.runs.config import CONFIG_DIR

pytestmark = QUIET

SPARSE = sorted(path.stem for path in (CONFIG_DIR / "method").glob("*.yaml") if "dense" not in path.stem)
RAMPS = ("gmp", "granet")
DELAYED = (*RAMPS, "snip")


def method(name: str) -> SelfishSparseCallback:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", [f"method={name}", "sparsity=0.6"])
    callback: SelfishSparseCallback = instantiate(config.method)
    return callback


@pytest.mark.parametrize("optimizer", ["sntasgd", "momentum"])
@pytest.mark.parametrize("name", SPARSE)
def test_inactive_weights_are_zero_and_the_count_is_exact(tmp_path: Path, name: str, optimizer: str) -> None:
    sparse = method(name)
    watch = WatchTotal(sparse)
    averaging = [NonMonotonicAveraging("rising")] if optimizer == "sntasgd" else []
    fit(tmp_path, net(optimizer), watch, sparse, *averaging, max_epochs=6)
    topology = sparse.topology
    assert watch.batches == 30
    assert sparse.sparsity_reached
    assert topology.live_weights == watch.totals[-1]
    assert abs(topology.live_weights - 0.4 * topology.total_weights) <= 1.5  # uniform rounds each of three tensors
    if name in RAMPS:
        assert watch.totals == sorted(watch.totals, reverse=True)
        assert len(set(watch.totals)) == 5  # of the five updates the last comes when the sparsity is reached
    else:
        assert len(set(watch.totals)) == 1
    moved = sum(sum(sum(gates.values()) for gates in update["pruned"].values()) for update in sparse.updates)
    assert (moved == 0) == (name in ("static", "snip"))


class WatchTotal(Watch):
    """Asserts that inactive weights are zero, and notes how many are live after each epoch."""

    def __init__(self, sparse: SelfishSparseCallback) -> None:
        super().__init__(sparse)
        self.totals: list[int] = []

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.counts = {}
        super().on_train_batch_end(*arguments)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.totals.append(self.sparse.topology.live_weights)


@pytest.mark.parametrize("name", [name for name in SPARSE if name not in ("selfish", "static")])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    recipe = Recipe("text", sparse={**options_of(name), "update_every_n_epochs": None if name == "snip" else 1})
    save = ModelCheckpoint(tmp_path / "saved", filename="{step}", save_top_k=-1, every_n_train_steps=5)
    whole = recipe.run(tmp_path, save)
    steps = sorted((tmp_path / "saved").glob("*.ckpt"))
    assert len(steps) == 4
    for path in steps:
        resumed = recipe.run(tmp_path, ckpt_path=path)
        assert not rest_differs(whole, resumed), path.name


def options_of(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", [f"method={name}", "sparsity=0.6", "seed=0"])
    wanted = ("sparsity", "allocation", "pruning", "growth", "redistribution", "initial_sparsity", "prune_rate")
    return {option: config.method[option] for option in (*wanted, "min_prune_rate")}


# ------------------------------------------------------------------------------------------------- by the gradient


class Gradients(pl.Callback):
    """Keeps the dense gradient before clipping, and the masks before it, at every optimizer step."""

    def __init__(self, sparse: SelfishSparseCallback) -> None:
        self.sparse = sparse
        self.steps: list[dict[str, tuple[Tensor, Tensor]]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        topology = self.sparse.topology
        self.steps.append(
            {name: (p.grad.clone(), topology.masks[p].clone()) for name, p in topology.parameters.items()}
        )


def test_growth_by_gradient_takes_that_of_the_first_step_dense_and_unclipped(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, growth="gradient", prune_rate=0.3, schedule="constant")
    seen = Gradients(sparse)  # before `sparse`, though Lightning calls that first
    fit(tmp_path, net("sgd"), seen, sparse, max_epochs=3, gradient_clip_val=1e-3)
    assert [update["step"] for update in sparse.updates] == [0, 5, 10]
    for step in (5, 10):
        grown = 0
        for name, (gradient, after) in seen.steps[step].items():
            before = seen.steps[step - 1][name][1].bool()
            born = after.bool() & ~before
            grown += int(born.sum())
            # What is free now was free to be chosen: no free position has a larger gradient than one that came back.
            assert all(gradient[born].abs() >= gradient[~after.bool()].abs().max())
            assert gradient.abs().max() > 1e-2  # far beyond the clipping
        assert grown > 10
        for between in range(step + 1, min(step + 5, 15)):
            assert all(torch.equal(seen.steps[between][name][1], seen.steps[step][name][1]) for name in seen.steps[0])


def test_accumulated_gradients_are_those_of_the_step(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, growth="gradient")
    fit(tmp_path, net("sgd"), sparse, max_epochs=3, accumulate_grad_batches=3)
    assert [update["step"] for update in sparse.updates] == [0, 2, 4]


def test_snip_chooses_at_the_first_step_by_its_gradient(tmp_path: Path) -> None:
    module = net("sgd")
    before = weights(module)
    sparse = method("snip")
    seen = Gradients(sparse)
    fit(tmp_path, module, seen, sparse, max_epochs=2)
    saliency = {name: (before[name] * gradient).abs() for name, (gradient, _) in seen.steps[0].items()}
    masks = {name: mask.bool() for name, (_, mask) in seen.steps[0].items()}
    kept = torch.cat([saliency[name][mask] for name, mask in masks.items()])
    gone = torch.cat([saliency[name][~mask] for name, mask in masks.items()])
    assert kept.min() >= gone.max()
    assert len(kept) == sparse.topology.live_weights
    assert all(torch.equal(seen.steps[-1][name][1], mask.float()) for name, mask in masks.items())
    assert len(sparse.updates) == 1


@pytest.mark.usefixtures("bfloat16")
def test_a_step_that_mixed_precision_leaves_out_has_no_gradient_to_choose_by(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, growth="gradient", update_every_n_steps=1)
    watch = Watch(sparse)
    fit(tmp_path, overflows("sgd"), watch, sparse, max_epochs=3, plugins=[ScaledOnCPU()])
    assert watch.batches == 15
    # The second step of each epoch is skipped: what was due then is made at the third, of the same number.
    assert [update["step"] for update in sparse.updates] == list(range(12))


class TwoOptimizers(Net):
    """Trains the LSTM and the linear layer in turns."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.lstm, self.linear)]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                for parameter, gradient in zip(
                    group["params"], torch.autograd.grad(self.loss(batch), group["params"]), strict=True
                ):
                    parameter.grad = gradient
            optimizer.step()


def test_each_optimizer_gives_the_gradients_of_its_own_step(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, growth="gradient")
    watch = Watch(sparse)
    fit(tmp_path, TwoOptimizers(), watch, sparse, max_epochs=3)
    assert [update["step"] for update in sparse.updates] == [0, 6, 11]  # the second steps after the first has
    assert all(sum(gates.values()) for gates in sparse.updates[1]["regrown"].values())
    assert watch.batches == 15


@pytest.mark.filterwarnings("ignore:No gradient has reached unused.weight")
def test_parameters_without_a_gradient_at_that_step_are_named(tmp_path: Path) -> None:
    def module() -> Net:
        made = net("sgd")
        made.unused = nn.Linear(3, 3)
        return made

    with pytest.raises(MisconfigurationException, match=r"have none in it: unused\.weight\. Leave them dense"):
        fit(tmp_path, module(), SelfishSparseCallback(0.5, growth="gradient"), max_epochs=2)
    sparse = SelfishSparseCallback(0.5, growth="gradient", exclude="unused.*")
    fit(tmp_path, module(), sparse, max_epochs=2)
    assert len(sparse.updates) == 2


def test_parameters_whose_optimizer_never_steps_are_named_when_the_next_update_is_due(tmp_path: Path) -> None:
    class OnlyOne(TwoOptimizers):
        def optimizers(self, *_: Any) -> Any:
            return super().optimizers()[:1]

    with pytest.raises(MisconfigurationException, match=r"took no step with one .*: linear\.weight\. Leave them"):
        fit(tmp_path, OnlyOne(), SelfishSparseCallback(0.5, growth="gradient"), max_epochs=3)


def test_momenta_are_the_mean_of_the_gradients_of_all_steps(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, growth="momentum")
    seen = Gradients(sparse)
    fit(tmp_path, net("sgd"), seen, sparse, max_epochs=2)
    for name, mean in sparse.topology.state_dict()["momenta"].items():
        expected = torch.zeros_like(mean)
        for step in seen.steps:
            expected = 0.9 * expected + 0.1 * step[name][0]
        torch.testing.assert_close(mean, expected)


def train_in_processes(rank: int, folder: Path, name: str) -> dict[str, Any]:
    sparse = method(name)
    trainer = make_trainer(folder, [sparse], strategy="ddp", devices=2, max_epochs=4)
    torch.manual_seed(rank)
    trainer.fit(net("momentum"), *loaders())
    masks = sparse.topology.masks
    return {"masks": [masks[p] for p in sparse.topology.parameters.values()], "updates": sparse.updates}


@pytest.mark.parametrize("name", ["granet", "snfs"])
def test_processes_choose_alike_by_their_gradients(tmp_path: Path, name: str) -> None:
    first, second = in_processes(2, train_in_processes, tmp_path, name)
    assert len(first["updates"]) == 4
    assert first["updates"] == second["updates"]
    assert all(torch.equal(one, other) for one, other in zip(first["masks"], second["masks"], strict=True))


# ------------------------------------------------------------------------------------------------------- the sparsity


@pytest.mark.parametrize("name", DELAYED)
def test_the_best_model_is_as_sparse_as_asked_for(tmp_path: Path, name: str) -> None:
    sparse = method(name)
    reached: list[bool] = []

    class Look(pl.Callback):
        def on_validation_end(self, *_: Any) -> None:
            reached.append(sparse.sparsity_reached)

    fit(tmp_path, net("sgd"), Look(), sparse, max_epochs=4, num_sanity_val_steps=0)
    assert reached == ([True] * 4 if name == "snip" else [False, False, False, True])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_sparsity": 0.8}, "Expected `initial_sparsity` of at most `sparsity` 0.5, got 0.8"),
        ({"initial_sparsity": -0.1}, r"Expected `initial_sparsity` in \[0, 1\)"),
        ({"initial_sparsity": 0.0, "sparsity_reached_at": 1.0}, "Expected `sparsity_reached_at` above 0 and below 1"),
        ({"initial_sparsity": 0.0, "sparsity_schedule": "steep"}, "Unknown `sparsity_schedule` 'steep'"),
        ({"initial_sparsity": 0.0, "pruning": "sign_flip"}, "chooses how many weights go"),
        ({"initial_sparsity": 0.0, "update_every_n_epochs": None}, "there are none"),
    ],
)
def test_sparsities_that_cannot_be_reached(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfishSparseCallback(0.5, **options)


def test_a_rising_sparsity_needs_an_end(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, initial_sparsity=0.0, schedule="constant")
    trainer = make_trainer(tmp_path, [sparse], max_epochs=-1)
    with pytest.raises(MisconfigurationException, match="reached at a share of training, and this Trainer has no end"):
        trainer.fit(net("sgd"), *loaders())


def test_a_schedule_of_ones_own(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, schedule=lambda progress, first, last: 0.1 + progress / 10)
    fit(tmp_path, net("sgd"), sparse, max_epochs=3)
    assert [update["rate"] for update in sparse.updates[1:]] == pytest.approx([0.1 + 1 / 30, 0.1 + 2 / 30])


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("options", [{"growth": "gradient"}, {"allocation": "snip"}])
def test_a_step_without_a_loss_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    step = Net.training_step

    def sometimes(self: Net, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 0 else step(self, batch, batch_idx)

    monkeypatch.setattr(Net, "training_step", sometimes)
    sparse = SelfishSparseCallback(0.5, **options)
    fit(tmp_path, net("sgd"), sparse, max_epochs=3)
    assert len(sparse.updates) == 3
    assert sparse.sparsity_reached


def test_sparse_gradients_are_refused_where_rules_look_at_them(tmp_path: Path) -> None:
    class Embeds(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4, sparse=True)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.embedding(torch.arange(3)).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = make_trainer(tmp_path, [SelfishSparseCallback(0.5, allocation="snip")], max_epochs=1)
    with pytest.raises(MisconfigurationException, match=r"embedding\.weight\. Make the embedding with `sparse=False`"):
        trainer.fit(Embeds(), [0, 1])


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Rprop])
def test_optimizers_that_sparse_training_would_be_wrong_with_are_refused(tmp_path: Path, kind: Any) -> None:
    module = net(lambda parameters: kind(parameters))
    with pytest.raises(MisconfigurationException, match=f"Sparse training does not go with {kind.__name__}: it "):
        fit(tmp_path, module, SelfishSparseCallback(0.5), max_epochs=1)
