"""What SNTASGD refuses."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from lightning_sparse_rnn import SNTASGD


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "`lr` to be a finite number of at least 0, got -1.0"),
        ({"lr": math.nan}, "`lr` to be a finite number of at least 0, got nan"),
        ({"lr": math.inf}, "`lr` to be a finite number of at least 0, got inf"),
        ({"lr": 1.0, "weight_decay": -0.1}, "`weight_decay` to be a finite number of at least 0, got -0.1"),
        ({"lr": 1.0, "nonmono": 0}, "`nonmono` to be a whole number of at least 1, got 0"),
        ({"lr": 1.0, "nonmono": 2.5}, "`nonmono` to be a whole number of at least 1, got 2.5"),
        ({"lr": 1.0, "nonmono": math.nan}, "`nonmono` to be a whole number of at least 1, got nan"),
        ({"lr": 1.0, "nonmono": math.inf}, "`nonmono` to be a whole number of at least 1, got inf"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SNTASGD([nn.Parameter(torch.ones(1))], **options)


def test_sparse_gradients_are_refused_before_anything_changes() -> None:
    linear, embedding = nn.Linear(2, 2, bias=False), nn.Embedding(4, 2, sparse=True)
    optimizer = SNTASGD([{"params": linear.parameters()}, {"params": embedding.parameters()}], lr=1.0)
    linear(embedding(torch.tensor([1]))).sum().backward()
    before = linear.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"dense gradients only\. Make the embedding with `sparse=False`"):
        optimizer.step()
    assert torch.equal(linear.weight, before)


@pytest.mark.parametrize("which", ["mask", "born"])
def test_a_mask_of_the_wrong_shape_is_refused_before_anything_changes(which: str) -> None:
    one, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 4))
    masks = {one: torch.zeros(3), other: torch.zeros(2, 4)}
    born = {other: torch.zeros(2, 4, dtype=torch.bool)}
    ({"mask": masks, "born": born}[which])[other] = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=rf"the {which} of a parameter in its shape \(2, 4\), got \(4, 2\)"):
        SNTASGD([one, other], lr=1.0).set_masks(masks, born)
    assert one.tolist() == [1.0, 1.0, 1.0]


def test_the_state_of_another_optimizer_is_refused() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = SNTASGD([weight], lr=0.3)
    with pytest.raises(
        ValueError, match=r"Expected the state of an SNTASGD.*'param_groups', 'state'.*another optimizer"
    ):
        optimizer.load_state_dict(SGD([weight], lr=0.1).state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize("shapes", [[(3,), (2,)], [(2,)], [(2,), (3,), (1,)]])
def test_the_state_of_other_parameters_is_refused(shapes: list[tuple[int, ...]]) -> None:
    optimizer = SNTASGD([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))], lr=0.3)
    other = SNTASGD([nn.Parameter(torch.ones(shape)) for shape in shapes], lr=0.1)
    other.restart()
    with pytest.raises(ValueError, match=r"parameter"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert not optimizer.averaging
