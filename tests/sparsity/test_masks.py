"""Masks and what they count, by hand."""

import torch
from torch import nn

from lightning_sparse_rnn.sparsity.gates import GateLayout
from lightning_sparse_rnn.sparsity.masks import Masks


def made() -> tuple[nn.Parameter, Masks]:
    weight = nn.Parameter(torch.ones(3, 2))
    return weight, Masks({"w": weight}, {"w": GateLayout({"a": 2, "b": 1}, "w")})


def test_all_are_live_at_first() -> None:
    weight, masks = made()
    assert (masks.live, masks.total, masks.shapes) == (6, 6, {"w": (3, 2)})
    masks.apply()
    assert torch.equal(weight, torch.ones(3, 2))


def test_counts_by_hand() -> None:
    weight, masks = made()
    masks.begin({"w": torch.tensor([True, False, False, False, True, False])})
    assert weight.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert (masks.live_per_gate(), masks.explored_per_gate()) == ({"w": {"a": 1, "b": 1}},) * 2
    assert masks.gate_densities() == {"w": {"a": 0.25, "b": 0.5}}
    weight.data.fill_(5.0)
    born = torch.tensor([True, True, False, False, False, False])  # the first was live and is born again
    masks.move({"w": torch.tensor([True, True, False, False, False, False])}, {"w": born})
    assert not weight.any()
    assert masks.by_name["w"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert (masks.live, masks.live_per_gate()) == (2, {"w": {"a": 2, "b": 0}})
    assert masks.explored_per_gate() == {"w": {"a": 2, "b": 1}}


def test_a_mask_is_one_tensor_for_good_and_follows_its_parameter() -> None:
    weight, masks = made()
    before = masks.by_name["w"]
    masks.begin({"w": torch.arange(6) < 3})
    assert masks.by_name["w"] is before
    state = masks.state_dict()
    weight.data = weight.data.double()
    masks.apply()
    assert masks.by_name["w"].dtype == torch.float64
    other = made()[1]
    other.load_state_dict(state)
    assert (other.live, other.explored_per_gate()) == (3, {"w": {"a": 3, "b": 0}})
