"""Whatever steps: after every batch inactive weights are zero, steps are counted, and what is reported is what is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, ToyParts, differences, end_state, loaders, make_trainer
from process_runs import in_processes
from torch import Tensor, nn
from torch.optim import Optimizer
from toy_runs import OPTIMIZERS, Net, Watch, fit, net

from lightning_sparse_rnn import SNTASGD, SelfishSparseCallback

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:SNTASGD starts to average when its trigger fires")]


def by_steps(**options: Any) -> SelfishSparseCallback:
    return SelfishSparseCallback(0.8, **{"update_every_n_steps": 4, "schedule": "constant", **options})


def updated_at(sparse: SelfishSparseCallback) -> list[int]:
    return [update["step"] for update in sparse.updates[1:]]


# ----------------------------------------------------------------------------------------- sharpness-aware minimisation


class SAM(Optimizer):
    """Sharpness-aware minimisation (Foret et al. 2021) as it is written for PyTorch: ``step`` is never called."""

    def __init__(self, parameters: Any, base: Callable[[Any], Optimizer], rho: float = 0.05) -> None:
        super().__init__(parameters, {"rho": rho})
        self.base = base(self.param_groups)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        norm = torch.stack([p.grad.norm() for group in self.param_groups for p in group["params"]]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.data.clone()
                p.add_(p.grad * (0.05 / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
        self.base.step()
        self.zero_grad()

    def step(self, closure: Any = None) -> Any:
        raise NotImplementedError


class HandMadeSAM(SAM):
    """The same with plain SGD written out, so that no ``step`` of any optimizer is called."""

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
                p.sub_(p.grad, alpha=0.1)
        self.zero_grad()


class Sharp(Net):
    """Two steps of its optimizer's own for each batch."""

    def __init__(self, kind: type[SAM] = SAM, base: str = "momentum") -> None:
        super().__init__(lambda parameters: kind(parameters, OPTIMIZERS[base]))
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        for step in (optimizer.first_step, optimizer.second_step):
            self.manual_backward(self.loss(batch))
            step()


def sharp(*options: Any, seed: int = 1) -> Sharp:
    torch.manual_seed(seed)
    return Sharp(*options)


@pytest.mark.parametrize("growth", ["random", "gradient"])
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_steps_inside_an_optimizer_whose_own_step_is_never_called(tmp_path: Path, base: str, growth: str) -> None:
    sparse = by_steps(growth=growth)
    watch = Watch(sparse)
    fit(tmp_path, sharp(SAM, base), watch, sparse, max_epochs=4)
    assert watch.batches == 20
    assert updated_at(sparse) == [4, 8, 12, 16]
    assert sparse.state_dict()["steps"] == 20
    assert all(sum(gates.values()) for gates in sparse.updates[-1]["regrown"].values())


def test_steps_that_no_optimizer_takes_are_counted_by_what_they_change(tmp_path: Path) -> None:
    sparse = by_steps()
    watch = Watch(sparse)
    fit(tmp_path, sharp(HandMadeSAM), watch, sparse, max_epochs=4)
    assert watch.batches == 20
    assert updated_at(sparse) == [4, 8, 12, 16]
    assert sparse.state_dict()["steps"] == 20


def test_gradients_of_steps_that_nobody_sees_are_asked_for_in_vain_and_the_run_says_so(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.8, growth="gradient", update_every_n_steps=2)
    with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match="no optimizer of torch has stepped"):
        fit(tmp_path, sharp(HandMadeSAM), sparse, max_epochs=4)


def test_a_resumed_run_of_such_steps_is_the_uninterrupted_one(tmp_path: Path) -> None:
    def sparse() -> SelfishSparseCallback:
        return by_steps(growth="gradient", update_every_n_steps=3)

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / f"epoch={trainer.current_epoch}.ckpt")

    plain = (SAM, "sgd")  # the base's state is in no checkpoint of an optimizer around it
    whole = fit(tmp_path, sharp(*plain), sparse(), Save(), max_epochs=4)
    for epoch in range(3):
        trainer = make_trainer(tmp_path, [sparse()], max_epochs=4)
        trainer.fit(sharp(*plain, seed=2), *loaders(), ckpt_path=str(tmp_path / f"epoch={epoch}.ckpt"))
        assert not differences(end_state(whole), end_state(trainer))


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_under_both_names_of_lightning(tmp_path: Path, package: str) -> None:
    lightning = pytest.importorskip(package)
    torch.manual_seed(1)
    kind = type("Sharp", (ToyParts, lightning.LightningModule), {"training_step": Sharp.training_step})
    module = kind()
    module.automatic_optimization = False
    module.configure_optimizers = lambda: SAM(module.parameters(), OPTIMIZERS["sgd"])
    sparse = by_steps()
    watch = Watch(sparse)
    trainer = make_trainer(tmp_path, [watch, sparse], kind=lightning.Trainer, max_epochs=2, enable_checkpointing=False)
    trainer.fit(module, *loaders())
    assert watch.batches == 10
    assert updated_at(sparse) == [4, 8]


def sharpen(rank: int, folder: Path) -> list[Tensor]:
    sparse = by_steps()
    trainer = make_trainer(folder, [Watch(sparse), sparse], strategy="ddp", devices=2, max_epochs=2)
    trainer.fit(sharp(), *loaders())
    masks = sparse.topology.masks
    return [torch.stack([p.detach(), masks[p]]) for p in sparse.topology.parameters.values()]


def test_in_two_processes(tmp_path: Path) -> None:
    first, second = in_processes(2, sharpen, tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


# --------------------------------------------------------------------------------------- what comes or goes in mid-run


class InEpoch(pl.Callback):
    """Does something when this batch of the second epoch has been trained on."""

    def __init__(self, act: Callable[[pl.Trainer, Any], None], batch: int = 1) -> None:
        self.act, self.batch = act, batch

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == self.batch:
            self.act(trainer, pl_module)


@pytest.mark.parametrize("kind", ["momentum", "adam", "sntasgd"])
def test_optimizers_that_are_set_up_in_mid_run_are_masked_and_counted(tmp_path: Path, kind: str) -> None:
    def renew(trainer: pl.Trainer, module: Net) -> None:
        module.make_optimizer = OPTIMIZERS[kind]
        trainer.strategy.setup_optimizers(trainer)

    sparse = by_steps()
    watch = Watch(sparse)
    trainer = fit(tmp_path, net("sgd"), InEpoch(renew), watch, sparse, max_epochs=4)
    assert watch.batches == 20
    assert updated_at(sparse) == [4, 8, 12, 16]
    if kind == "sntasgd":
        (optimizer,) = trainer.optimizers
        assert isinstance(optimizer, SNTASGD)
        optimizer.step()  # by itself, when nobody masks after it any more
        assert all(not parameter[mask == 0].any() for parameter, mask in sparse.topology.masks.items())


class Words(pl.LightningModule):
    """An embedding that can be enlarged, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.linear = nn.Linear(8, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.linear(self.embedding(torch.arange(self.embedding.num_embeddings))).square().mean()

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


@pytest.mark.parametrize("rows", [10, 16, 6])
def test_a_parameter_that_is_replaced_keeps_its_mask_where_it_was_and_its_density_where_it_is_new(
    tmp_path: Path, rows: int
) -> None:
    before: dict[str, Tensor] = {}

    def enlarge(trainer: pl.Trainer, module: Words) -> None:
        old = module.embedding.weight
        before["mask"] = sparse.topology.masks[old].clone()
        module.embedding = nn.Embedding(rows, 8)
        with torch.no_grad():
            module.embedding.weight[: min(rows, 10)] = old[: min(rows, 10)]
        trainer.strategy.setup_optimizers(trainer)

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Words, *_: Any) -> None:
            if before and "after" not in before:
                weight = pl_module.embedding.weight
                before["after"] = sparse.topology.masks[weight].clone()
                before["weight"] = weight.detach().clone()

    sparse = SelfishSparseCallback(0.75)
    watch = Watch(sparse)
    watch.counts = {}
    torch.manual_seed(0)
    module = Words()
    trainer = make_trainer(tmp_path, [InEpoch(enlarge), Look(), sparse], max_epochs=4)
    trainer.fit(module, range(5))
    common = min(rows, 10)
    assert torch.equal(before["after"][:common], before["mask"][:common])
    assert int(before["after"][10:].sum()) == 2 * max(0, rows - 10)
    assert before["weight"][before["after"] == 1].count_nonzero() > 5
    assert not before["weight"][before["after"] == 0].any()
    for parameter, mask in sparse.topology.masks.items():
        assert not parameter[mask == 0].any()
    assert set(sparse.topology.parameters.values()) == {module.embedding.weight, module.linear.weight}
    assert [update["update"] for update in sparse.updates] == [0, 1, 2, 3]


def test_a_parameter_that_is_gone_is_named(tmp_path: Path) -> None:
    def remove(trainer: pl.Trainer, module: Net) -> None:
        module.linear.weight = None

    with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match=r"linear\.weight went out of the mod"):
        fit(tmp_path, net("sgd"), SelfishSparseCallback(0.5), InEpoch(remove), max_epochs=2)


def test_a_parameter_that_is_renamed_is_named_as_it_is_called_now(tmp_path: Path) -> None:
    class Compiled(Net):
        def on_fit_start(self) -> None:
            self.linear = torch.compile(self.linear, backend="eager")

    torch.manual_seed(1)
    message = r"^linear\.weight is now called linear\._orig_mod\.weight: .*`configure_model`.*`part\.compile\(\)`"
    with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match=message):
        fit(tmp_path, Compiled("sgd"), SelfishSparseCallback(0.5), max_epochs=1)


def test_a_parameter_that_is_renamed_in_configure_model_is_sparse_under_its_new_name(tmp_path: Path) -> None:
    class Wrapped(Net):
        def configure_model(self) -> None:
            self.linear = torch.nn.Sequential(self.linear)

    module, sparse = Wrapped("sgd"), SelfishSparseCallback(0.5)
    fit(tmp_path, module, sparse, max_epochs=1)
    weight = sparse.topology.parameters["linear.0.weight"]
    assert weight is module.linear[0].weight
    assert torch.equal(weight != 0, sparse.topology.masks[weight] == 1)


@pytest.mark.parametrize("kind", ["sgd", "adam", "sntasgd"])
def test_weights_that_others_load_within_an_epoch_are_sparse_in_the_next_forward_pass(
    tmp_path: Path, kind: str
) -> None:
    module = net(kind)
    dense = copy.deepcopy(module.state_dict())
    seen: list[float] = []

    class Look(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append(float((self.lstm.weight_hh_l0 != 0).float().mean()))
            return super().training_step(batch, batch_idx)

    module.__class__ = Look
    sparse = SelfishSparseCallback(0.5, update_every_n_epochs=None)
    fit(tmp_path, module, sparse, InEpoch(lambda trainer, module: module.load_state_dict(dense)), max_epochs=2)
    assert seen == [0.5] * 10


# ------------------------------------------------------------------------------------------- optimizers around others


class Lookahead(Optimizer):
    """Keeps slow weights beside those of another optimizer; as timm has it, it never calls ``Optimizer.__init__``."""

    def __init__(self, base: Optimizer) -> None:
        self.base, self.param_groups, self.defaults, self.state = base, base.param_groups, base.defaults, base.state
        self._optimizer_step_pre_hooks: dict[Any, Any] = {}
        self._optimizer_step_post_hooks: dict[Any, Any] = {}
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.base.step(closure)
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"] if self.steps % 2 == 0 else ():
                slow = self.base.state[p].setdefault("slow", torch.ones_like(p))  # zero nowhere, as after a load
                slow.lerp_(p, 0.5)
                p.copy_(slow)
        return loss


@pytest.mark.parametrize("base", ["sgd", "momentum", "adam"])
def test_an_optimizer_around_another(tmp_path: Path, base: str) -> None:
    def make(parameters: Any) -> Optimizer:
        return Lookahead(OPTIMIZERS[base](parameters))

    sparse = by_steps()
    watch = Watch(sparse)
    trainer = fit(tmp_path, net(make), watch, sparse, max_epochs=4)
    assert watch.batches == 20
    assert updated_at(sparse) == [4, 8, 12, 16]
    (optimizer,) = trainer.optimizers
    for parameter, mask in sparse.topology.masks.items():
        for key, value in optimizer.base.state[parameter].items():
            if isinstance(value, Tensor) and value.shape == mask.shape and key != "slow":
                assert not value[(mask == 0) & (parameter.grad == 0)].any()


class Twice(torch.optim.Adam):
    """Calls the step of its class's ancestor, of which torch tells too."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_step_that_calls_its_ancestors_is_one_step(tmp_path: Path) -> None:
    sparse = by_steps()
    fit(tmp_path, net(lambda parameters: Twice(parameters, lr=0.01)), sparse, max_epochs=4)
    assert updated_at(sparse) == [4, 8, 12, 16]
    assert sparse.state_dict()["steps"] == 20


class Raw(Net):
    """Steps its optimizer past Lightning."""

    def __init__(self) -> None:
        super().__init__("adam")
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


@pytest.mark.parametrize("options", [{"growth": "gradient"}, {"allocation": "snip"}, {"growth": "momentum"}])
def test_a_step_past_lightning_has_gradients_to_choose_by(tmp_path: Path, options: dict[str, Any]) -> None:
    sparse = by_steps(**options)
    torch.manual_seed(1)
    fit(tmp_path, Raw(), sparse, max_epochs=3)
    assert updated_at(sparse) == [4, 8, 12]
    assert sparse.sparsity_reached
    assert all(torch.equal(parameter != 0, mask == 1) for parameter, mask in sparse.topology.masks.items())


def test_nothing_is_masked_any_more_when_a_fit_has_ended(tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("the machine is gone")

    module = net("sgd")
    with pytest.raises(RuntimeError, match="the machine is gone"):
        fit(tmp_path, module, SelfishSparseCallback(0.5), Fails(), max_epochs=1)
    fit(tmp_path, module, SelfishSparseCallback(0.5, allocation="nonzero"), max_epochs=1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module.loss(next(iter(loaders()[1]))).backward()
    optimizer.step()
    assert module.lstm.weight_hh_l0.count_nonzero() > 100


# ------------------------------------------------------------------------------------------------ networks in turns


class Turns(Net):
    """Trains its two networks in turns, as adversarial ones are: the other is switched off meanwhile."""

    def __init__(self, toggles: bool = True) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.toggles = toggles

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.lstm, self.linear)]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer, other in zip(self.optimizers(), (self.linear, self.lstm), strict=True):
            if self.toggles:
                self.toggle_optimizer(optimizer)
            else:  # by hand, and until the other one's turn
                self.requires_grad_(True)
                other.requires_grad_(False)
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()
            if self.toggles:
                self.untoggle_optimizer(optimizer)


@pytest.mark.parametrize("toggles", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"growth": "random"},
        {"growth": "gradient"},
        {"growth": "gradient", "update_every_n_steps": 3},
        {"allocation": "snip", "update_every_n_epochs": None},
        {"initial_sparsity": 0.2, "growth": "gradient", "sparsity_reached_at": 0.5},
        {"redistribution": "model", "growth": "gradient"},
    ],
)
def test_what_is_switched_off_in_turns_is_not_frozen(tmp_path: Path, options: dict[str, Any], toggles: bool) -> None:
    torch.manual_seed(1)
    sparse = SelfishSparseCallback(0.6, **options)
    watch = Watch(sparse)
    module = Turns(toggles)
    callbacks = [sparse] if "initial_sparsity" in options or "redistribution" in options else [watch, sparse]
    fit(tmp_path, module, *callbacks, max_epochs=4)
    assert all(torch.equal(parameter != 0, mask == 1) for parameter, mask in sparse.topology.masks.items())
    for update in sparse.updates[1:]:
        for tensor, gates in update["pruned"].items():
            assert sum(gates.values()) > 0, f"{tensor} was taken for frozen"
    assert sparse.sparsity_reached
    if "allocation" not in options:
        assert len(sparse.updates) > 3


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("batch", range(3))
def test_networks_in_turns_are_not_frozen_either_where_a_run_goes_on(tmp_path: Path, batch: int) -> None:
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if (trainer.current_epoch, args[-1]) == (1, batch):
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    for path in (None, tmp_path / "mid.ckpt"):
        sparse = SelfishSparseCallback(0.6, update_every_n_steps=3)
        trainer = make_trainer(tmp_path, [sparse, *([] if path else [Save()])], max_epochs=3)
        trainer.fit(Turns(toggles=False), *loaders(), ckpt_path=path)
        assert [update["step"] for update in sparse.updates] == [0, 3, 6, 9, 12]
        for update in sparse.updates[1:]:
            assert sum(update["pruned"]["lstm.weight_hh_l0"].values())
            assert sum(update["pruned"]["linear.weight"].values())


def test_what_is_frozen_inside_an_optimizer_keeps_its_topology(tmp_path: Path) -> None:
    class Freezes(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: Net) -> None:
            pl_module.linear.requires_grad_(False)

    for growth in ("random", "gradient"):
        module, sparse = net("adam"), SelfishSparseCallback(0.5, growth=growth)
        fit(tmp_path, module, sparse, Freezes(), max_epochs=3)
        for update in sparse.updates[1:]:
            assert not sum(update["pruned"]["linear.weight"].values())
            assert sum(update["pruned"]["lstm.weight_hh_l0"].values())


class Freezes(pl.Callback):
    """Switches the LSTM off in one hook of one epoch, and on again in another epoch."""

    def __init__(self, hook: str, on_again: int | None = None, batch: int = 2) -> None:
        def switch(trainer: pl.Trainer, pl_module: Net, *args: Any) -> None:
            if trainer.current_epoch == 1 and (not args or args[-1] == batch):
                pl_module.lstm.requires_grad_(False)
                self.weights = {name: p.detach().clone() for name, p in pl_module.lstm.named_parameters()}

        self.on_again = on_again
        setattr(self, hook, switch)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights: dict[str, Tensor] = {}

    def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Net, optimizer: Optimizer) -> None:
        if trainer.current_epoch == self.on_again:
            pl_module.lstm.requires_grad_(True)


@pytest.mark.parametrize("growth", ["random", "momentum", "gradient"])
@pytest.mark.parametrize(
    "hook", ["on_train_epoch_end", "on_validation_end", "on_train_batch_end", "on_train_batch_start"]
)
@pytest.mark.parametrize("steps", [None, 3])
def test_what_is_frozen_in_mid_run_moves_no_more(tmp_path: Path, hook: str, growth: str, steps: int | None) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5, growth=growth, update_every_n_steps=steps)
    freezes = Freezes(hook)
    fit(tmp_path, module, sparse, freezes, max_epochs=4)
    assert freezes.weights
    for name, before in freezes.weights.items():
        assert torch.equal(getattr(module.lstm, name), before)
    last = sparse.updates[-1]
    assert not sum(last["pruned"]["lstm.weight_hh_l0"].values())
    assert sum(last["pruned"]["linear.weight"].values())


def test_what_is_frozen_for_a_while_moves_before_and_after(tmp_path: Path) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5)
    fit(tmp_path, module, sparse, Freezes("on_train_epoch_end", on_again=3), max_epochs=6)
    moved = [sum(update["pruned"]["lstm.weight_hh_l0"].values()) > 0 for update in sparse.updates[1:]]
    assert moved == [True, False, False, True, True]


@pytest.mark.parametrize(("hook", "steps"), [("on_train_epoch_start", None), ("on_train_batch_start", 1)])
def test_what_is_frozen_right_after_an_update_is_told(tmp_path: Path, hook: str, steps: int | None) -> None:
    module, sparse = net("adam"), SelfishSparseCallback(0.5, update_every_n_steps=steps)
    with pytest.warns(UserWarning, match=r"^lstm\.weight_ih_l0, lstm\.weight_hh_l0: frozen right after a topology upd"):
        fit(tmp_path, module, sparse, Freezes(hook), max_epochs=3)


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_train_batch_end"])
@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_what_has_had_a_step_since_an_update_may_be_frozen(tmp_path: Path, hook: str, growth: str) -> None:
    sparse = SelfishSparseCallback(0.5, growth=growth, update_every_n_steps=1)
    fit(tmp_path, net("adam"), sparse, Freezes(hook), max_epochs=3)
    assert not sum(sparse.updates[-1]["pruned"]["lstm.weight_hh_l0"].values())


# ----------------------------------------------------------------------- what optimizers remember in other than numbers


class Coded(torch.optim.SGD):
    """Keeps codes of eight bits of each weight, with a table of what they mean, or without one."""

    def __init__(self, parameters: Any, table: bool = True) -> None:
        super().__init__(parameters, lr=0.1)
        self.table = table

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["state1"] = torch.full_like(p, 7, dtype=torch.uint8)
                if self.table:
                    self.state[p]["qmap1"] = torch.arange(-127, 128) / 127
        return loss


def test_an_optimizer_that_cannot_forget_is_refused_after_its_first_step_unless_it_need_not(tmp_path: Path) -> None:
    def make(parameters: Any) -> Optimizer:
        return Coded(parameters, table=False)

    batches: list[int] = []

    class Count(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            batches.append(1)

    with pytest.raises(ValueError, match=r"Coded keeps 'state1' of each weight as uint8, in which it is not known"):
        fit(tmp_path, net(make), SelfishSparseCallback(0.5), Count(), max_epochs=2)
    assert batches == []
    fit(tmp_path, net(make), SelfishSparseCallback(0.5, update_every_n_epochs=None), max_epochs=2)
    sparse = SelfishSparseCallback(0.5)
    fit(tmp_path, net(Coded), Watch(sparse), sparse, max_epochs=2)
    assert len(sparse.updates) == 2
