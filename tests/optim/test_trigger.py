"""The trigger, alone and in the optimizer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from snt_asgd_reference import trigger_fires
from torch import nn

from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.optim import NonMonotonicTrigger

losses_with_nonsense = st.lists(
    st.sampled_from([1.0, 1.5, 2.0, 2.5, 3.0, math.nan, math.inf, -math.inf]) | st.floats(0, 10), max_size=30
)


@given(losses_with_nonsense, st.integers(1, 6))
def test_trigger_is_that_of_algorithm_1_on_the_finite_losses(losses: list[float], nonmono: int) -> None:
    optimizer = SNTASGD([nn.Parameter(torch.zeros(1))], lr=1.0, nonmono=nonmono)
    finite = [loss for loss in losses if math.isfinite(loss)]
    fired = []
    for loss in losses:
        if math.isfinite(loss):
            fired.append(optimizer.observe(loss))
        else:
            with pytest.warns(UserWarning, match="trigger of SNTASGD leaves out a validation loss of"):
                assert optimizer.observe(torch.tensor(loss)) is False
        assert optimizer.averaging == any(fired)
    expected = trigger_fires(finite, nonmono)
    assert [i for i, fire in enumerate(fired) if fire] == ([] if expected is None else [expected])
    assert optimizer.history == tuple(finite)


def test_trigger_by_hand() -> None:
    optimizer = SNTASGD([nn.Parameter(torch.zeros(1))], lr=1.0, nonmono=2)
    assert [optimizer.observe(loss) for loss in (5.0, 3.0, 4.0, 4.0, 4.0)] == [False, False, False, False, True]
    # 4 > 3 fires only once 3 is more than two validations ago; 5 is beaten before that.
    assert [optimizer.observe(loss) for loss in (9.0, 9.0)] == [False, False]
    assert optimizer.history == (5.0, 3.0, 4.0, 4.0, 4.0, 9.0, 9.0)
    optimizer.restart()
    assert optimizer.history == ()
    assert optimizer.averaging
    assert [optimizer.observe(loss) for loss in (1.0, 9.0, 9.0, 9.0)] == [False] * 4


@given(losses_with_nonsense, st.integers(1, 6))
@pytest.mark.filterwarnings("ignore:The trigger of SNTASGD leaves out")
def test_alone_it_is_that_of_the_optimizer(losses: list[float], nonmono: int) -> None:
    trigger, optimizer = NonMonotonicTrigger(nonmono), SNTASGD([nn.Parameter(torch.zeros(1))], lr=1.0, nonmono=nonmono)
    for loss in losses:
        assert trigger.observe(loss) == optimizer.observe(loss)
        assert (trigger.fired, trigger.history) == (optimizer.averaging, optimizer.history)


def test_fired_by_hand_it_forgets_its_losses_and_fires_no_more() -> None:
    trigger = NonMonotonicTrigger(nonmono=1)
    assert [trigger.observe(loss) for loss in (1.0, 2.0)] == [False, False]
    trigger.fire()
    assert (trigger.fired, trigger.history) == (True, ())
    assert [trigger.observe(loss) for loss in (1.0, 2.0, 3.0)] == [False] * 3
