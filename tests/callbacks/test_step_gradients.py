"""Gradients that an update waits for, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_sparse_rnn.callbacks.step_gradients import StepGradients


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("left_out", [True, False])
def test_gradients_of_a_step_that_will_be_left_out_are_passed_over(bad: float, left_out: bool) -> None:
    # One value among many, and in the other tensor values whose sum float16 cannot hold.
    named = {"a": nn.Parameter(torch.zeros(40, 30)), "b": nn.Parameter(torch.zeros(20, 20, dtype=torch.float16))}
    named["a"].grad, named["b"].grad = torch.ones(40, 30), torch.full((20, 20), 6e4, dtype=torch.float16)
    gathered = StepGradients().gather(named, named.values(), set(named.values()), finite=left_out)
    assert gathered == {parameter: parameter.grad for parameter in named.values()}
    named["a"].grad[3, 4] = bad
    gathered = StepGradients().gather(named, named.values(), set(named.values()), finite=left_out)
    assert (gathered is None) == left_out
