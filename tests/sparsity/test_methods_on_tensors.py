"""The methods of the comparison on plain tensors: exact counts, whatever moves, and each one's own by hand."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity import SparseTopology
from lightning_sparse_rnn.sparsity.rules.growth import GROWTH
from lightning_sparse_rnn.sparsity.rules.pruning import PRUNING
from lightning_sparse_rnn.sparsity.rules.redistribution import REDISTRIBUTIONS


def model(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return nn.ModuleDict({"embedding": nn.Embedding(9, 4), "rnn": nn.LSTM(4, 5), "decoder": nn.Linear(5, 9)})


def train(topology: SparseTopology) -> dict[Tensor, Tensor]:
    """Move all live weights, as a step would, and return its gradients."""
    for parameter in topology.parameters.values():
        parameter.grad = torch.randn_like(parameter)
    topology.observe(topology.parameters.values())
    with torch.no_grad():
        for parameter, mask in topology.masks.items():
            parameter.sub_(0.3 * parameter.grad * mask)
    return {parameter: parameter.grad for parameter in topology.parameters.values()}


def flat(topology: SparseTopology) -> dict[str, Tensor]:
    return {name: topology.masks[parameter].flatten().bool() for name, parameter in topology.parameters.items()}


@settings(max_examples=60)
@given(
    pruning=st.sampled_from(sorted(PRUNING)),
    growth=st.sampled_from(sorted(GROWTH)),
    redistribution=st.sampled_from(sorted(REDISTRIBUTIONS)),
    sparsity=st.sampled_from([0.0, 0.2, 0.67, 0.9]),
    rate=st.sampled_from([0.0, 0.05, 0.5, 0.99]),
    seed=st.integers(0, 5),
)
def test_any_rules_together_keep_the_count_to_the_weight(
    pruning: str, growth: str, redistribution: str, sparsity: float, rate: float, seed: int
) -> None:
    topology = SparseTopology(
        model(seed), sparsity, pruning=pruning, growth=growth, redistribution=redistribution, seed=seed
    )
    live, explored = topology.live_weights, flat(topology)
    for _ in range(4):
        gradients = train(topology)
        before = {p: p.detach().clone() for p in topology.parameters.values()}
        update = topology.update(rate, gradients=gradients)
        assert topology.live_weights == live
        for name, (parameter, mask) in zip(topology.parameters, topology.masks.items(), strict=True):
            assert set(mask.unique().tolist()) <= {0.0, 1.0}
            born = update.born[parameter]
            assert not parameter[(mask == 0) | born].any()
            kept = mask.bool() & ~born
            assert torch.equal(parameter[kept], before[parameter][kept])
            explored[name] |= mask.flatten().bool()
        pruned = sum(sum(gates.values()) for gates in update.pruned.values())
        regrown = sum(sum(gates.values()) for gates in update.regrown.values())
        assert pruned == regrown
        found = {name: sum(gates.values()) for name, gates in topology.explored_per_gate().items()}
        assert found == {name: int(mask.sum()) for name, mask in explored.items()}


@pytest.mark.parametrize("redistribution", sorted(REDISTRIBUTIONS))
@pytest.mark.parametrize("pruning", sorted(PRUNING))
def test_a_saved_topology_goes_on_as_if_nothing_had_happened(pruning: str, redistribution: str) -> None:
    options: dict[str, Any] = {"pruning": pruning, "growth": "momentum", "redistribution": redistribution}
    one = SparseTopology(model(), 0.6, **options)
    torch.manual_seed(1)
    for _ in range(2):
        one.update(0.3, gradients=train(one))
    state = copy.deepcopy(one.state_dict())
    module = model()
    with torch.no_grad():
        for parameter, other in zip(module.parameters(), one.parameters.values(), strict=False):
            assert parameter.shape == other.shape or parameter.dim() == 1
        for name, other in one.parameters.items():
            module.get_parameter(name).copy_(other)
    two = SparseTopology(module, 0.6, **options, state=state)
    for topology in (one, two):
        torch.manual_seed(2)
        for _ in range(3):
            topology.update(0.3, gradients=train(topology))
    assert all(torch.equal(mask, flat(two)[name]) for name, mask in flat(one).items())
    assert one.explored_per_gate() == two.explored_per_gate()
    assert one.state_dict()["memory"] == two.state_dict()["memory"]


# ------------------------------------------------------------------------------------------------- redistribution


def two_tensors(first: list[float], second: list[float]) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(torch.tensor([values])) for values in (first, second)])


def test_dsr_shares_out_by_what_is_left() -> None:
    module = two_tensors([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 0.0, 0.0, 0.0, 0.0], [3.0, 2.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    topology = SparseTopology(module, allocation="nonzero", pruning="threshold", redistribution="live")
    update = topology.update(0.4)
    # The four smallest of the model are all of the second tensor; the first is left with six weights and gets all four.
    assert update.pruned == {"0": {"all": 0}, "1": {"all": 4}}
    assert update.regrown == {"0": {"all": 4}, "1": {"all": 0}}


def test_snfs_shares_out_by_mean_momentum_of_what_was_live() -> None:
    module = two_tensors([9.0, 8.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [7.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    topology = SparseTopology(module, allocation="nonzero", growth="momentum", redistribution="momentum")
    first, second = topology.parameters.values()
    first.grad = torch.tensor([[1.0, -1.0, 1.0, 1.0, 5.0, 0.0, 6.0, 0.0]])
    second.grad = torch.tensor([[3.0, -3.0, 3.0, 3.0, 0.0, -1.0, 2.0, 3.0]])
    topology.observe([first, second])
    update = topology.update(0.5)
    # Two go from each; of the four, shares 1 : 3 give one to the first tensor and three to the second.
    assert update.pruned == {"0": {"all": 2}, "1": {"all": 2}}
    assert update.born[first].nonzero().tolist() == [[0, 6]]
    assert update.born[second].nonzero().tolist() == [[0, 1], [0, 3], [0, 7]]  # 3 at positions 1, 3 and 7


def test_deepr_moves_what_has_crossed_zero_to_anywhere_in_the_model() -> None:
    topology = SparseTopology(model(), 0.5, pruning="sign_flip", redistribution="model")
    live = topology.live_weights
    with torch.no_grad():
        topology.parameters["decoder.weight"].neg_()
    update = topology.update(0.0)
    assert update.pruned["decoder.weight"]["all"] == 22  # half of 45, rounded to even
    assert sum(update.pruned["embedding.weight"].values()) == 0
    assert topology.live_weights == live
    assert sum(update.regrown["decoder.weight"].values()) < 22
    # The newborn have a sign but no value, and have crossed nothing.
    assert sum(sum(gates.values()) for gates in topology.update(0.0).pruned.values()) == 0


def test_newborn_signs_are_drawn_evenly() -> None:
    weight = nn.Parameter(torch.ones(100, 100))
    topology = SparseTopology(nn.ParameterList([weight]), 0.5, pruning="sign_flip")
    with torch.no_grad():
        weight.neg_()
    born = topology.update(0.0).born[weight]
    with torch.no_grad():
        weight[born] = 1.0
    again = topology.update(0.0)
    assert int(born.sum()) == 5000
    assert 2300 < again.pruned["0"]["all"] < 2700  # those whose sign was drawn negative


# ---------------------------------------------------------------------------------------------------------- density


def test_gmp_only_prunes_the_smallest_of_each_matrix_down_to_the_density() -> None:
    topology = SparseTopology(model(), 0.0, growth=None)
    total = topology.total_weights
    for density in (0.8, 0.5, 0.33):
        before = {name: parameter.detach().clone() for name, parameter in topology.parameters.items()}
        update = topology.update(0.5, density=density)
        assert topology.live_weights == round(density * total)
        assert not any(born.any() for born in update.born.values())
        for name, mask in flat(topology).items():
            sizes = before[name].flatten().abs()
            assert abs(int(mask.sum()) - density * mask.numel()) <= 1
            assert sizes[mask].min() >= sizes[~mask].max()


def test_granet_prunes_to_the_density_first_and_then_replaces_its_share() -> None:
    topology = SparseTopology(model(), 0.5, allocation="erdos_renyi_kernel", growth="gradient", redistribution="model")
    live, total = topology.live_weights, topology.total_weights
    update = topology.update(0.2, density=0.4, gradients=train(topology))
    after = round(0.4 * total)
    assert topology.live_weights == after
    assert sum(sum(gates.values()) for gates in update.regrown.values()) == -(-after // 5)
    assert sum(sum(gates.values()) for gates in update.pruned.values()) == live - after - (-after // 5)


def test_a_density_that_rises_or_that_the_rule_cannot_follow() -> None:
    topology = SparseTopology(model(), 0.5)
    with pytest.raises(ValueError, match=r"of at most 0\.\d+, the present one, got 0\.6: an update only lowers it"):
        topology.update(0.1, density=0.6)
    with pytest.raises(ValueError, match="Expected a `density` above 0"):
        topology.update(0.1, density=0.0)
    topology = SparseTopology(model(), 0.5, pruning="sign_flip")
    with pytest.raises(ValueError, match="chooses how many weights go"):
        topology.update(0.1, density=0.4)


# ------------------------------------------------------------------------------------------------------------- SNIP


def test_snip_keeps_the_largest_products_of_the_whole_model() -> None:
    topology = SparseTopology(model(), 0.7, allocation="snip")
    assert topology.awaits_gradients
    assert topology.sparsity == 0.0
    with pytest.raises(RuntimeError, match="call `allocate` with the first gradient"):
        topology.update(0.1)
    gradients = train(topology)
    saliency = {name: (p * gradients[p]).detach().abs().flatten() for name, p in topology.parameters.items()}
    topology.allocate(gradients)
    masks = flat(topology)
    assert topology.live_weights == round((1.0 - 0.7) * topology.total_weights)
    kept = torch.cat([saliency[name][mask] for name, mask in masks.items()])
    gone = torch.cat([saliency[name][~mask] for name, mask in masks.items()])
    assert kept.min() >= gone.max()
    assert all(torch.equal(p != 0, masks[name].view(p.shape)) for name, p in topology.parameters.items())
    assert sum(sum(gates.values()) for gates in topology.explored_per_gate().values()) == topology.live_weights
    with pytest.raises(RuntimeError, match="chosen already"):
        topology.allocate(gradients)


def test_a_topology_saved_before_its_first_gradient_still_waits_for_it() -> None:
    state = SparseTopology(model(), 0.7, allocation="snip").state_dict()
    topology = SparseTopology(model(), 0.7, allocation="snip", state=state)
    assert topology.awaits_gradients
    topology.allocate(train(topology))
    later = SparseTopology(model(), 0.7, allocation="snip", state=topology.state_dict())
    assert not later.awaits_gradients
    assert later.live_weights == topology.live_weights
