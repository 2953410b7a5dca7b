"""Lightning and Fabric hand out wrappers of the optimizer: what is done to one is done to the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from lightning_sparse_rnn import SNTASGD


def by_lightning(optimizer: SNTASGD) -> Any:
    return LightningOptimizer(optimizer)


def by_fabric(optimizer: SNTASGD) -> Any:
    fabric = Fabric(accelerator="cpu", devices=1)
    return fabric.setup_optimizers(optimizer)


def by_copied_attributes(optimizer: SNTASGD) -> Any:
    """As older wrappers do it."""
    wrapper = object.__new__(SNTASGD)
    vars(wrapper).update(vars(optimizer))
    return wrapper


wrapped = pytest.mark.parametrize("wrap", [by_lightning, by_fabric, by_copied_attributes, copy.copy])
Wrap = Callable[[SNTASGD], Any]


def made() -> tuple[nn.Parameter, SNTASGD]:
    weight = nn.Parameter(torch.tensor([4.0, 4.0, 0.0]))
    optimizer = SNTASGD([weight], lr=1.0, nonmono=1)
    optimizer.set_masks({weight: torch.tensor([1.0, 1.0, 0.0])})
    return weight, optimizer


def step(weight: Tensor, optimizer: SNTASGD, times: int = 1) -> None:
    for _ in range(times):
        weight.grad = torch.ones(3)
        optimizer.step()


@wrapped
def test_losses_told_to_a_wrapper_fire_the_trigger(wrap: Wrap) -> None:
    weight, optimizer = made()
    wrapper = wrap(optimizer)
    assert [wrapper.observe(loss) for loss in (1.0, 2.0, 3.0)] == [False, False, True]
    step(weight, optimizer, 2)
    for each in (optimizer, wrapper):
        assert each.averaging
        assert each.history == (1.0, 2.0, 3.0)
        assert each.averaged(weight).tolist() == [2.5, 2.5, 0.0]
        assert each.training(weight).tolist() == [2.0, 2.0, 0.0]


@wrapped
@pytest.mark.parametrize("here", ["optimizer", "wrapper"])
def test_all_else_reaches_both(wrap: Wrap, here: str) -> None:
    weight, optimizer = made()
    wrapper = wrap(optimizer)
    one, other = (optimizer, wrapper) if here == "optimizer" else (wrapper, optimizer)
    one.restart()
    assert other.averaging
    step(weight, optimizer, 2)
    with one.averaged_weights():
        assert weight.tolist() == [2.5, 2.5, 0.0]
        assert other.training(weight).tolist() == [2.0, 2.0, 0.0]
        with pytest.raises(RuntimeError, match="Cannot start to average while the parameters show their averages"):
            other.restart()
        with pytest.raises(RuntimeError, match="Cannot change masks"):
            other.set_masks({})
    assert weight.tolist() == [2.0, 2.0, 0.0]
    one.show_averaged_weights()
    other.show_training_weights()
    one.set_masks({weight: torch.tensor([1.0, 0.0, 1.0])}, {weight: torch.tensor([False, False, True])})
    step(weight, optimizer)
    assert other.averaged(weight).tolist() == [2.0, 0.0, -1.0]
    late = nn.Parameter(torch.ones(2))
    one.add_param_group({"params": [late]})
    assert other.averaged(late).tolist() == [1.0, 1.0]
    saved = copy.deepcopy(other.state_dict())
    step(weight, optimizer, 3)
    one.load_state_dict(saved)
    assert other.averaged(weight).tolist() == one.averaged(weight).tolist() == [2.0, 0.0, -1.0]
    for group in one.param_groups:
        group["lr"] = 0.25
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("wrap", [by_fabric, by_copied_attributes, copy.copy])
def test_a_step_of_the_wrapper_is_one_of_the_optimizer(wrap: Wrap) -> None:
    weight, optimizer = made()
    wrapper = wrap(optimizer)
    wrapper.restart()
    step(weight, wrapper, 2)
    assert optimizer.averaged(weight).tolist() == [2.5, 2.5, 0.0]


@pytest.mark.parametrize("wrap", [by_lightning, by_fabric, copy.copy])
def test_a_deep_copy_goes_its_own_way(wrap: Wrap) -> None:
    weight, optimizer = made()
    wrapper = wrap(optimizer)
    wrapper.restart()
    twin, own = copy.deepcopy((weight, optimizer))
    step(weight, optimizer, 2)
    assert own.averaging
    assert own.averaged(twin).tolist() == [4.0, 4.0, 0.0]
    assert own.observe(1.0) is False
    assert (own.history, optimizer.history) == ((1.0,), ())
