"""SNT-ASGD against a slow reference and torch's own SGD, and what masks do to it."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from snt_asgd_reference import ReferenceSNTASGD
from snt_asgd_runs import SCOPES, STEPS, Run, scripts
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.sparsity import SparseTopology


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@given(script=scripts, seed=st.integers(0, 99), scope=st.sampled_from(SCOPES))
def test_every_step_is_that_of_the_reference(
    foreach: bool, maximize: bool, script: list[str], seed: int, scope: str
) -> None:
    run = Run(seed=seed, scope=scope, foreach=foreach, maximize=maximize)
    reference = ReferenceSNTASGD(maximize=maximize)
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            reference.add(parameter.flatten().tolist(), group["lr"], group["weight_decay"])
    follow_masks(reference, run, run.topology.masks, {})

    for action in script:
        changed = run.act(action)
        if action in STEPS:
            reference.step([None if p.grad is None else p.grad.flatten().tolist() for p in run.parameters()])
        elif action == "begin":
            reference.begin()
        elif action == "schedule":
            for tensor in reference.tensors:
                tensor.lr *= 0.9
        elif action == "add_group" and len(reference.tensors) < len(run.parameters()):
            reference.add(run.model.late.flatten().tolist(), 0.2, 0.03)
        elif changed is not None:
            follow_masks(reference, run, *changed)
        assert run.optimizer.averaging == reference.averaging
        compare(run, reference)

    with run.optimizer.averaged_weights():
        for parameter, tensor in zip(run.parameters(), reference.tensors, strict=True):
            close(parameter.detach(), [weight.averaged for weight in tensor.weights])
        compare(run, reference)


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=found.dtype), rtol=1e-9, atol=1e-12)


def follow_masks(
    reference: ReferenceSNTASGD, run: Run, masks: dict[Tensor, Tensor], born: dict[Tensor, Tensor]
) -> None:
    reference.set_masks(
        [masks[p].flatten().tolist() if p in masks else None for p in run.parameters()],
        [born[p].flatten().tolist() if p in born else None for p in run.parameters()],
    )


def compare(run: Run, reference: ReferenceSNTASGD) -> None:
    for parameter, tensor in zip(run.parameters(), reference.tensors, strict=True):
        training, averaged = run.optimizer.training(parameter), run.optimizer.averaged(parameter)
        close(training, [weight.value for weight in tensor.weights])
        close(averaged, [weight.averaged for weight in tensor.weights])
        dead = torch.tensor([not weight.live for weight in tensor.weights]).view(parameter.shape)
        assert not training[dead].any()
        assert not averaged[dead].any()


def test_values_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([4.0, 4.0, 0.0]))
    optimizer = SNTASGD([weight], lr=1.0)
    optimizer.set_masks({weight: torch.tensor([1.0, 1.0, 0.0])})
    optimizer.restart()
    assert optimizer.averaged(weight).tolist() == [4.0, 4.0, 0.0]
    for _ in range(2):
        weight.grad = torch.ones(3)
        optimizer.step()
    assert weight.tolist() == [2.0, 2.0, 0.0]
    assert optimizer.averaged(weight).tolist() == [2.5, 2.5, 0.0]
    # The second weight dies, the third is born; the first one's average goes on.
    weight.data[1] = 0.0
    optimizer.set_masks({weight: torch.tensor([1.0, 0.0, 1.0])}, {weight: torch.tensor([False, False, True])})
    assert optimizer.averaged(weight).tolist() == [2.5, 0.0, 0.0]
    optimizer.step()
    assert optimizer.averaged(weight).tolist() == [2.0, 0.0, -1.0]
    # The third is pruned and comes back at once: it keeps its mask and is born again.
    weight.data[2] = 0.0
    optimizer.set_masks({weight: torch.tensor([1.0, 0.0, 1.0])}, {weight: torch.tensor([False, False, True])})
    optimizer.step()
    optimizer.step()
    assert weight.tolist() == [-1.0, 0.0, -2.0]
    assert optimizer.averaged(weight).tolist() == [pytest.approx((3 + 2 + 1 + 0 - 1 + 0) / 5 - 0), 0.0, -1.5]


@pytest.mark.parametrize("foreach", [False, True, None])
@pytest.mark.parametrize("maximize", [False, True])
def test_without_masks_it_is_sgd_and_then_its_plain_average(foreach: bool | None, maximize: bool) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))

    ours, theirs = build(), build()
    optimizer = SNTASGD(ours.parameters(), lr=0.1, weight_decay=0.01, maximize=maximize, foreach=foreach)
    sgd = SGD(theirs.parameters(), lr=0.1, weight_decay=0.01, maximize=maximize)
    schedules = [ExponentialLR(each, 0.95) for each in (optimizer, sgd)]
    sums = [torch.zeros_like(parameter) for parameter in theirs.parameters()]
    for step in range(20):
        if step == 8:
            optimizer.restart()
        x = torch.randn(4, 5)
        for model, stepper, schedule in zip((ours, theirs), (optimizer, sgd), schedules, strict=True):

            def closure(model: nn.Module = model, stepper: torch.optim.Optimizer = stepper, x: Tensor = x) -> Tensor:
                stepper.zero_grad()
                loss = (model(x) - x.sum(1, keepdim=True)).square().mean().tanh()
                loss.backward()
                return loss

            assert stepper.step(closure) is not None
            schedule.step()
        if step >= 8:
            torch._foreach_add_(sums, [parameter.detach() for parameter in theirs.parameters()])
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))
    for parameter, total in zip(ours.parameters(), sums, strict=True):
        torch.testing.assert_close(optimizer.averaged(parameter), total / 12)


def test_a_closure_returns_its_loss() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))

    def closure() -> float:
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert SNTASGD([weight], lr=0.5).step(closure) == 9.0
    assert weight.item() == 0.0


def test_masks_of_the_right_kind_are_shared_and_others_converted() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = SNTASGD([weight], lr=1.0)
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    weight.grad = -torch.ones(2, 2)
    optimizer.set_masks({weight: mask})
    mask[1, 1] = 0.0
    optimizer.step()
    assert weight.tolist() == [[2.0, 0.0], [2.0, 1.0]]
    optimizer.set_masks({weight: torch.tensor([[True, True], [False, False]])})
    optimizer.step()
    assert weight.tolist() == [[3.0, 1.0], [0.0, 0.0]]


def test_masks_of_another_optimizer_are_passed_over_and_foreign_ones_refused() -> None:
    one, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = SNTASGD([one], lr=1.0)
    optimizer.set_masks({one: torch.tensor([1.0, 0.0, 0.0]), other: torch.zeros(2)})
    assert (one.tolist(), other.tolist()) == ([1.0, 0.0, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"None of the masks is for a parameter of this optimizer\. Was it made for"):
        optimizer.set_masks({other: torch.zeros(2)})


@pytest.mark.parametrize("foreach", [False, True])
def test_lstm_keeps_its_flat_weights(foreach: bool) -> None:
    model = nn.LSTM(3, 4, 2, bidirectional=True)
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    topology = SparseTopology(model, 0.5)
    optimizer = SNTASGD(model.parameters(), lr=0.1, weight_decay=0.01, foreach=foreach)
    optimizer.restart()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            optimizer.set_masks(topology.masks, topology.update(0.5).born)
            model(torch.randn(5, 2, 3))[0].sum().backward()
            optimizer.step()
            with optimizer.averaged_weights():
                model(torch.randn(5, 2, 3))
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == before
    flat = [weight for weight in model._flat_weights if weight is not None]
    assert all(one is other for one, other in zip(flat, model.parameters(), strict=True))
