"""Live weights that start larger where others have been taken away."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity import SparseTopology, TopologyOptions


def module() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"embedding": nn.Embedding(12, 8), "rnn": nn.LSTM(8, 8), "conv": nn.Conv1d(4, 6, 3)})


def dense() -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module().named_parameters()}


def test_no_scale_is_the_default() -> None:
    topology = SparseTopology(module(), 0.67)
    for name, parameter in topology.parameters.items():
        assert torch.equal(parameter, dense()[name] * topology.masks[parameter])


@pytest.mark.parametrize("allocation", ["uniform", "erdos_renyi", {"embedding*": 0.9}])
def test_density_scales_each_tensor_by_its_own(allocation: Any) -> None:
    topology = SparseTopology(module(), 0.6, allocation=allocation, initial_scale="density")
    for name, parameter in topology.parameters.items():
        mask = topology.masks[parameter]
        factor = math.sqrt(mask.numel() / int(mask.sum()))
        torch.testing.assert_close(parameter.detach(), dense()[name] * mask * factor)


def test_fan_in_scales_each_row_by_what_it_is_left_with() -> None:
    topology = SparseTopology(module(), 0.6, initial_scale="fan_in")
    for name, parameter in topology.parameters.items():
        mask = topology.masks[parameter]
        for row, kept, before in zip(parameter.detach(), mask, dense()[name], strict=True):
            factor = math.sqrt(kept.numel() / max(1, int(kept.sum())))
            torch.testing.assert_close(row, before * kept * factor)


def test_the_square_of_a_row_is_kept_on_average() -> None:
    weight = nn.Parameter(torch.randn(500, 400))
    before = weight.detach().square().sum()
    for scale in ("density", "fan_in"):
        made = nn.ParameterList([nn.Parameter(weight.detach().clone())])
        SparseTopology(made, 0.8, initial_scale=scale)
        assert made[0].detach().square().sum() == pytest.approx(float(before), rel=0.03)


def but_embeddings(live: Tensor, is_embedding: bool) -> float:
    return 1.0 if is_embedding else 3.0


@pytest.mark.parametrize("given", [but_embeddings, f"{__name__}.but_embeddings"])
def test_a_function_of_ones_own_can_tell_embeddings(given: Any) -> None:
    topology = SparseTopology(module(), 0.5, initial_scale=given)
    for name, parameter in topology.parameters.items():
        factor = 1.0 if name == "embedding.weight" else 3.0
        assert torch.equal(parameter, dense()[name] * topology.masks[parameter] * factor)


def test_an_embedding_that_is_tied_to_a_decoder_is_multiplied_with() -> None:
    seen = []
    made = nn.ModuleDict({"embedding": nn.Embedding(12, 8), "decoder": nn.Linear(8, 12)})
    made["decoder"].weight = made["embedding"].weight
    SparseTopology(made, 0.5, initial_scale=lambda live, is_embedding: seen.append(is_embedding) or 1.0)
    assert seen == [False]


def test_what_is_given_is_not_scaled() -> None:
    topology = SparseTopology(module(), 0.6, initial_scale="density")
    weights = {name: parameter.detach().clone() for name, parameter in topology.parameters.items()}
    made = module()
    made.load_state_dict({**made.state_dict(), **weights})
    for options in ({"state": topology.state_dict()}, {"allocation": "nonzero"}):
        again = SparseTopology(made, 0.6, initial_scale="density", **options)
        assert all(torch.equal(parameter, weights[name]) for name, parameter in again.parameters.items())
    topology.update(0.3)
    topology.apply_masks()
    for name, parameter in topology.parameters.items():
        assert set((parameter / weights[name])[parameter != 0].tolist()) == {1.0}


def test_snip_scales_when_it_chooses_and_never_again() -> None:
    saved = SparseTopology(module(), 0.6, allocation="snip", initial_scale="density").state_dict()
    topology = SparseTopology(module(), 0.6, allocation="snip", initial_scale="density", state=saved)
    assert all(torch.equal(parameter, dense()[name]) for name, parameter in topology.parameters.items())
    topology.allocate({p: torch.randn_like(p) for p in topology.parameters.values()})
    for name, parameter in topology.parameters.items():
        mask = topology.masks[parameter]
        factor = math.sqrt(mask.numel() / max(1, int(mask.sum())))
        torch.testing.assert_close(parameter.detach(), dense()[name] * mask * factor)


def test_a_ramp_gets_the_factor_of_its_own_start() -> None:
    options = TopologyOptions(0.9, initial_scale="density")
    for initial, factor in ((0.0, 1.0), (0.75, 2.0)):
        topology = SparseTopology.from_options(module(), options, initial_sparsity=initial)
        for name, parameter in topology.parameters.items():
            assert torch.equal(parameter, dense()[name] * topology.masks[parameter] * factor)
