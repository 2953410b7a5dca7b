"""Steps with closures, steps left out, matrices that no gradient reaches, and layers of other kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import QUIET, loaders, make_trainer
from torch import Tensor
from toy_runs import OPTIMIZERS, Net, fit, net

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback

pytestmark = QUIET


class RawClosure(Net):
    """Manual optimization with torch's own optimizer, whose closure makes the gradients."""

    def __init__(self) -> None:
        super().__init__(OPTIMIZERS["adam"])
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(batch)
            self.manual_backward(loss)
            return loss

        if batch_idx % 2:
            optimizer.step(closure)
        else:
            optimizer.step(closure=closure)


@pytest.mark.parametrize("options", [{"growth": "gradient"}, {"allocation": "snip"}], ids=["gradient", "snip"])
def test_gradients_that_a_closure_makes_are_looked_at(tmp_path: Path, options: dict[str, str]) -> None:
    torch.manual_seed(1)
    sparse = SelfishSparseCallback(0.8, update_every_n_steps=4, **options)
    fit(tmp_path, RawClosure(), sparse, max_epochs=2)
    assert [update["step"] for update in sparse.updates[1:]] == [4, 8]
    assert sparse.topology.sparsity == pytest.approx(0.8, abs=0.02)


class EveryOther(Net):
    """Its own ``optimizer_step`` gathers the gradients of two batches, as Lightning's documentation has it."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


def test_schedules_end_with_the_run_where_steps_are_left_out(tmp_path: Path) -> None:
    torch.manual_seed(1)
    sparse = SelfishSparseCallback(0.8, prune_rate=0.5, min_prune_rate=0.0, schedule="linear")
    fit(tmp_path, EveryOther(OPTIMIZERS["adam"]), sparse, max_epochs=5)
    assert sparse.state_dict()["steps"] == 10
    # Of 25 steps two have been taken when it is seen that some are left out; what is left of the rate falls evenly.
    assert [update["rate"] for update in sparse.updates[1:]] == pytest.approx([0.46, 0.345, 0.23, 0.115])
    torch.manual_seed(1)
    ramp = SelfishSparseCallback(0.8, initial_sparsity=0.1)
    fit(tmp_path, EveryOther(OPTIMIZERS["adam"]), ramp, max_epochs=8)
    assert ramp.sparsity_reached


class Copied(Net):
    """Beside its network a copy of it, which the optimizer holds as well and which no loss has anything to do with."""

    def __init__(self) -> None:
        super().__init__(OPTIMIZERS["adam"])
        self.average = torch.optim.swa_utils.AveragedModel(self.lstm)


@pytest.mark.parametrize("every", [1, None])
def test_what_no_gradient_reaches_is_told_and_not_moved(tmp_path: Path, every: int | None) -> None:
    torch.manual_seed(1)
    sparse = SelfishSparseCallback(0.8, update_every_n_epochs=every)
    with pytest.warns(UserWarning, match="No gradient has reached average.module.weight_ih_l0, average.mod"):
        fit(tmp_path, Copied(), sparse, max_epochs=3)
    for update in sparse.updates[1:]:
        assert {name for name, gates in update["regrown"].items() if any(gates.values())} == {
            name for name in sparse.topology.parameters if not name.startswith("average")
        }
    torch.manual_seed(1)
    fit(tmp_path, Copied(), SelfishSparseCallback(0.8, exclude="average.*"), max_epochs=3)  # says nothing


def test_gradients_that_are_gone_after_the_step_have_been_there(tmp_path: Path) -> None:
    class LetsGo(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            self.zero_grad()
            return loss

    sparse = SelfishSparseCallback(0.5)
    fit(tmp_path, net(lambda parameters: LetsGo(parameters, lr=0.1)), sparse, max_epochs=3)
    assert all(any(gates.values()) for update in sparse.updates[1:] for gates in update["regrown"].values())


class TwoStages(Net):
    """The second optimizer steps from the third epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return OPTIMIZERS["adam"](self.lstm.parameters()), OPTIMIZERS["adam"](self.linear.parameters())

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        self.manual_backward(self.loss(batch))
        first.step()
        if self.current_epoch >= 2:
            second.step()
        first.zero_grad()
        second.zero_grad()


@pytest.mark.parametrize("resumed", [False, True])
def test_what_is_not_stepped_yet_keeps_its_initial_weights(tmp_path: Path, resumed: bool) -> None:
    torch.manual_seed(1)
    sparse, module = SelfishSparseCallback(0.5), TwoStages()
    trainer = fit(tmp_path, module, sparse, max_epochs=2 if resumed else 4)
    if resumed:
        trainer.save_checkpoint(tmp_path / "two.ckpt")
        sparse, module = SelfishSparseCallback(0.5), TwoStages()
        make_trainer(tmp_path, (sparse,), max_epochs=4).fit(module, *loaders(), ckpt_path=tmp_path / "two.ckpt")
    moved = [any(update["regrown"]["linear.weight"].values()) for update in sparse.updates[1:]]
    assert moved == [False, False, True]


def test_a_module_that_keeps_its_optimizer_can_be_fitted_again(tmp_path: Path) -> None:
    module = net("sntasgd")
    kept = module.configure_optimizers()
    module.configure_optimizers = lambda: kept
    sparse, averaging = SelfishSparseCallback(0.5), NonMonotonicAveraging("rising")
    for epochs in (3, 5):
        fit(tmp_path, module, sparse, averaging, max_epochs=epochs)
    assert all(bool((p[mask == 0] == 0).all()) for p, mask in sparse.topology.masks.items())


def test_a_layer_without_a_shape_is_named(tmp_path: Path) -> None:
    module = net("adam")
    module.linear = torch.nn.LazyLinear(2)
    with pytest.raises(ValueError, match=r"linear\.weight has no shape before Net has seen a batch\."):
        fit(tmp_path, module, SelfishSparseCallback(0.5), max_epochs=1)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_scripted_layers_are_sparse(tmp_path: Path) -> None:
    module = net("adam")
    module.linear = torch.jit.script(torch.nn.Linear(6, 2))
    sparse = SelfishSparseCallback(0.5)
    fit(tmp_path, module, sparse, max_epochs=3)
    assert int(module.linear.weight.count_nonzero()) <= 6
    assert len(sparse.updates) == 3
