"""What averages are of, and how they are shown."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from snt_asgd_runs import Run, averaging_run, comparable
from torch import Tensor, nn

from lightning_sparse_rnn import SNTASGD


def test_averages_begin_with_the_step_after_the_trigger_and_again_after_a_restart() -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    optimizer = SNTASGD([weight], lr=1.0, nonmono=1)

    def step() -> float:
        weight.grad = torch.ones(1)
        optimizer.step()
        return optimizer.averaged(weight).item()

    assert [step(), step()] == [9.0, 8.0]
    assert [optimizer.observe(loss) for loss in (1.0, 2.0, 2.0)] == [False, False, True]
    assert [step(), step(), step()] == [7.0, 6.5, 6.0]
    optimizer.restart()
    assert optimizer.averaged(weight).item() == 5.0
    assert [step(), step()] == [4.0, 3.5]


def test_averages_are_shown_inside_and_weights_put_back() -> None:
    run = averaging_run()
    before = comparable(run)
    averages = [run.optimizer.averaged(parameter).flatten().tolist() for parameter in run.parameters()]
    assert averages != before
    with run.optimizer.averaged_weights():
        assert comparable(run) == averages
        with run.optimizer.averaged_weights():
            assert comparable(run) == averages
        assert comparable(run) == averages
        assert [run.optimizer.training(p).flatten().tolist() for p in run.parameters()] == before
        assert [run.optimizer.averaged(p).flatten().tolist() for p in run.parameters()] == averages
    assert comparable(run) == before


def test_before_the_trigger_nothing_is_shown() -> None:
    run = Run()
    run.act("step")
    before = comparable(run)
    with run.optimizer.averaged_weights():
        assert comparable(run) == before
        run.act("step")  # nor refused
    assert comparable(run) != before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_weights_are_put_back_whatever_is_raised(error: type[BaseException]) -> None:
    run = averaging_run()
    before = comparable(run)
    with pytest.raises(error), run.optimizer.averaged_weights(), run.optimizer.averaged_weights():
        raise error
    assert comparable(run) == before
    run.act("step")


def test_weights_are_put_back_if_showing_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    run, undisturbed = averaging_run(), averaging_run()
    before = comparable(run)
    copy_, calls = Tensor.copy_, []

    def interrupted(self: Tensor, *args: Any) -> Tensor:
        calls.append(self)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return copy_(self, *args)

    monkeypatch.setattr(Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt), run.optimizer.averaged_weights():
        pass
    monkeypatch.undo()
    assert comparable(run) == before
    undisturbed.act("show")
    for each in (run, undisturbed):
        each.act("step")
        each.act("show")
    assert [run.optimizer.averaged(p).tolist() for p in run.parameters()] == [
        undisturbed.optimizer.averaged(p).tolist() for p in undisturbed.parameters()
    ]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda run: run.act("step"), "take a step"),
        (lambda run: run.act("begin"), "start to average"),
        (lambda run: run.optimizer.set_masks(run.topology.masks), "change masks"),
    ],
)
def test_what_needs_the_training_weights_is_refused_while_averages_are_shown(
    act: Callable[[Run], object], said: str
) -> None:
    run = averaging_run()
    run.optimizer.observe(3.0)
    before = comparable(run)
    with run.optimizer.averaged_weights():
        shown = comparable(run)
        with pytest.raises(RuntimeError, match=f"Cannot {said} while the parameters show their averages: leave"):
            act(run)
        assert comparable(run) == shown
    assert comparable(run) == before
    assert run.optimizer.history == (3.0,)


def test_shown_averages_stay_until_training_weights_are_asked_for() -> None:
    run = averaging_run()
    before = comparable(run)
    run.optimizer.show_averaged_weights()
    shown = comparable(run)
    run.optimizer.show_averaged_weights()
    with run.optimizer.averaged_weights():
        pass
    assert comparable(run) == shown
    run.optimizer.show_training_weights()
    run.optimizer.show_training_weights()
    assert comparable(run) == before != shown


def test_queries_are_copies() -> None:
    run = averaging_run()
    for shown in (False, True):
        if shown:
            run.optimizer.show_averaged_weights()
        before = comparable(run)
        for parameter in run.parameters():
            kept = [run.optimizer.averaged(parameter), run.optimizer.training(parameter)]
            for query in (run.optimizer.averaged, run.optimizer.training):
                assert not query(parameter).requires_grad
                query(parameter).fill_(7.0)
            again = [run.optimizer.averaged(parameter), run.optimizer.training(parameter)]
            assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
        assert comparable(run) == before


def test_half_precision_means_are_not_rounded_on_the_way() -> None:
    """In bfloat16 a sum of 300 ones would stay at 256."""
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = SNTASGD([weight], lr=0.0)
    optimizer.restart()
    for _ in range(300):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert optimizer.averaged(weight).tolist() == [1.0, 1.0]
    assert optimizer.averaged(weight).dtype == torch.bfloat16


def test_without_births_averages_are_the_weights_until_the_first_step() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = SNTASGD([weight], lr=0.1, since_birth=False)
    optimizer.restart()
    mask = torch.tensor([1.0, 1.0, 0.0])
    with torch.no_grad():
        weight[0] = 0.0  # as a topology update does
    optimizer.set_masks({weight: mask}, {weight: torch.tensor([True, False, False])})
    assert optimizer.averaged(weight).tolist() == [0.0, 2.0, 0.0]
    weight.grad = torch.tensor([10.0, 0.0, 0.0])
    optimizer.step()
    assert optimizer.averaged(weight).tolist() == [-1.0, 2.0, 0.0]


def test_without_births_it_is_nt_asgd_on_masked_weights() -> None:
    """Averages run over all steps since the trigger, zeros and earlier lives included; what is dead shows as zero."""
    weight = nn.Parameter(torch.randn(6, 7))
    optimizer = SNTASGD([weight], lr=0.1, weight_decay=0.01, since_birth=False)
    mask = torch.rand(6, 7) < 0.5
    optimizer.set_masks({weight: mask})
    optimizer.restart()
    moments = []
    for step in range(20):
        if step % 6 == 5:
            born = ~mask & (torch.rand(6, 7) < 0.3)
            mask = mask & (torch.rand(6, 7) < 0.7) | born
            optimizer.set_masks({weight: mask}, {weight: born})
        weight.grad = torch.randn(6, 7)
        optimizer.step()
        moments.append(weight.detach().clone())
        if step in (3, 7, 19):
            expected = torch.stack(moments).mean(0) * mask
            torch.testing.assert_close(optimizer.averaged(weight), expected)
            with optimizer.averaged_weights():
                torch.testing.assert_close(weight.detach(), expected)
            assert torch.equal(weight, moments[-1])
    assert optimizer.averaging
