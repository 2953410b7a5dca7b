"""One topology update against an obvious one in plain Python: what is pruned, what comes back, what is reported."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity import SparseTopology

SCOPES = ["none", "gates", "layer", "model"]
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
rates = st.sampled_from(["0", "0.005", "0.1", "0.25", "0.3", "0.5", "0.8", "0.99"])
Position = tuple[str, int]


@st.composite
def modules(draw: st.DrawFn) -> nn.ModuleDict:
    """A small language model around one of torch's recurrent layers, its weights with ties or without."""
    vocabulary, embedded, hidden = draw(st.integers(3, 9)), draw(st.integers(2, 6)), draw(st.integers(2, 6))
    torch.manual_seed(draw(st.integers(0, 1000)))
    kind = draw(st.sampled_from(list(GATES)))
    module = nn.ModuleDict(
        {
            "embedding": nn.Embedding(vocabulary, embedded),
            "rnn": kind(embedded, hidden, draw(st.integers(1, 2)), bidirectional=draw(st.booleans())),
            "decoder": nn.Linear(hidden, vocabulary),
        }
    )
    if draw(st.booleans()):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_((3 * parameter).round())
    return module


def pools_by_hand(topology: SparseTopology, scope: str, gates: int) -> list[list[Position]]:
    """List the positions that share a count, in the order of the parameters, from torch's documentation alone."""
    pools: dict[str, list[Position]] = {}
    for name, parameter in topology.parameters.items():
        blocks = gates if name.startswith("rnn") else 1
        per_block = parameter.numel() // blocks
        for position in range(parameter.numel()):
            key = {
                "none": f"{name}, gate {position // per_block}",
                "gates": name,
                "layer": name.replace("weight_ih", "weight").replace("weight_hh", "weight"),
                "model": "",
            }[scope]
            pools.setdefault(key, []).append((name, position))
    return list(pools.values())


def pruned_by_hand(
    pools: list[list[Position]], weights: dict[str, list[float]], live: set[Position], rate: str
) -> set[Position]:
    """The ⌈rate · n⌉ smallest of each pool's n live weights, the earlier of equals first; nothing of a full pool."""
    gone: set[Position] = set()
    for pool in pools:
        alive = [position for position in pool if position in live]
        if len(alive) < len(pool):
            by_size = sorted(alive, key=lambda position: abs(weights[position[0]][position[1]]))
            gone.update(by_size[: math.ceil(Fraction(rate) * len(alive))])
    return gone


def positions(tensors: Iterable[tuple[str, Tensor]]) -> set[Position]:
    return {(name, i) for name, tensor in tensors for i in tensor.flatten().nonzero().flatten().tolist()}


def live_positions(topology: SparseTopology) -> set[Position]:
    return positions((name, topology.masks[parameter]) for name, parameter in topology.parameters.items())


def flat_weights(topology: SparseTopology) -> dict[str, list[float]]:
    return {name: parameter.flatten().tolist() for name, parameter in topology.parameters.items()}


@pytest.mark.parametrize("scope", SCOPES)
@given(
    module=modules(),
    sparsity=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.67]),
    allocation=st.sampled_from(["uniform", "erdos_renyi"]),
    rate=rates,
    updates=st.integers(1, 3),
)
def test_updates_are_those_of_the_reference(
    scope: str, module: nn.ModuleDict, sparsity: float, allocation: str, rate: str, updates: int
) -> None:
    topology = SparseTopology(module, sparsity, allocation=allocation, redistribution=scope)
    pools = pools_by_hand(topology, scope, GATES[type(module["rnn"])])
    dense = {name: p.detach().clone() for name, p in module.named_parameters() if name not in topology.parameters}
    for number in range(1, updates + 1):
        before, weights = live_positions(topology), flat_weights(topology)
        update = topology.update(float(rate))
        after, new_weights = live_positions(topology), flat_weights(topology)
        born = positions((name, update.born[parameter]) for name, parameter in topology.parameters.items())

        # Born and live before can only be what was pruned and came back.
        pruned = (before - after) | (born & before)
        assert pruned == pruned_by_hand(pools, weights, before, rate)
        assert after == (before - pruned) | born
        assert not born & (before - pruned)
        for pool in pools:
            assert len(born.intersection(pool)) == len(pruned.intersection(pool))
            assert len(after.intersection(pool)) == len(before.intersection(pool))
        # What stayed keeps its value; everything else is zero, the newborn too.
        for name, values in new_weights.items():
            assert values == [v if (name, i) in before - pruned else 0.0 for i, v in enumerate(weights[name])]

        assert (update.number, update.rate, topology.updates) == (number, float(rate), number)
        for name, parameter in topology.parameters.items():
            blocks = GATES[type(module["rnn"])] if name.startswith("rnn") else 1
            for reported, expected in ((update.pruned, pruned), (update.regrown, born), (update.live, after)):
                found = Counter(i * blocks // parameter.numel() for tensor, i in expected if tensor == name)
                assert list(reported[name].values()) == [found[block] for block in range(blocks)]
        assert update.replaced == pytest.approx(len(pruned) / len(after))
    assert all(torch.equal(module.get_parameter(name), values) for name, values in dense.items())


@pytest.mark.parametrize("allocation", ["uniform", "erdos_renyi", "erdos_renyi_kernel"])
@pytest.mark.parametrize("scope", SCOPES)
def test_dead_weights_stay_zero_while_training_moves_everything(allocation: str, scope: str) -> None:
    module = nn.ModuleDict({"conv": nn.Conv1d(3, 5, 3), "rnn": nn.GRU(5, 6), "decoder": nn.Linear(6, 9)})
    topology = SparseTopology(module, 0.6, allocation=allocation, redistribution=scope)
    live = topology.live_weights
    for _ in range(5):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        topology.apply_masks()
        assert all(torch.equal(parameter != 0, mask.bool()) for parameter, mask in topology.masks.items())
        topology.update(0.4)
        assert topology.live_weights == live
        assert all(not parameter[mask == 0].any() for parameter, mask in topology.masks.items())


def test_a_gate_of_large_weights_keeps_more_of_them() -> None:
    """The redistribution of the paper, by hand: the matrix loses its 4 smallest, all from the small gate."""
    module = nn.GRU(4, 2, bias=False)
    with torch.no_grad():
        module.weight_hh_l0.zero_()
        module.weight_ih_l0.zero_()
        for gate, size in enumerate((3.0, 1.0, 2.0)):  # reset, update, new
            module.weight_ih_l0[2 * gate : 2 * gate + 2, :2] = size
        module.weight_hh_l0[0, 0] = 1.0
    topology = SparseTopology(module, allocation="nonzero", redistribution="gates")
    update = topology.update(1 / 3)
    assert update.pruned["weight_ih_l0"] == {"reset": 0, "update": 4, "new": 0}
    assert sum(update.live["weight_ih_l0"].values()) == 12
    assert update.live["weight_ih_l0"]["reset"] >= 4
    assert topology.live_per_gate() == update.live
    assert topology.gate_sizes["weight_ih_l0"] == {"reset": 8, "update": 8, "new": 8}


@pytest.mark.parametrize(
    ("rate", "n", "count"), [(0.07, 100, 7), (0.55, 100, 55), (0.14, 50, 7), (0.29, 100, 29), (0.005, 3, 1)]
)
def test_the_share_is_not_moved_by_rounding_errors(rate: float, n: int, count: int) -> None:
    """0.07 · 100 is a little above 7 in floating point, and 0.29 · 100 a little below 29."""
    weight = torch.zeros(2, 100)
    weight[0, :n] = torch.arange(1, n + 1)
    topology = SparseTopology(nn.ParameterList([nn.Parameter(weight)]), allocation="nonzero")
    assert topology.update(rate).pruned["0"]["all"] == count


def test_a_full_pool_is_left_alone_beside_one_that_is_not() -> None:
    module = nn.ParameterList([nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))])
    with torch.no_grad():
        module[1][0] = 0.0
    full = module[0].detach().clone()
    topology = SparseTopology(module, allocation="nonzero")
    update = topology.update(0.5)
    assert torch.equal(module[0], full)
    assert not update.born[module[0]].any()
    assert (update.pruned["0"]["all"], update.pruned["1"]["all"]) == (0, 6)


def test_growth_is_uniform_over_the_free_positions_those_just_pruned_included() -> None:
    draws = 2100
    weight = nn.Parameter(torch.zeros(2, 4))
    values = torch.tensor([[0.0, 3.0, 0.0, -0.1], [0.0, 0.2, 0.0, 0.0]])
    weight.data.copy_(values)
    topology = SparseTopology(nn.ParameterList([weight]), allocation="nonzero")
    state = topology.state_dict()
    seen: Counter[tuple[int, ...]] = Counter()
    for number in range(draws):
        weight.data.copy_(values)
        topology.load_state_dict({**state, "updates": number})
        seen[tuple(topology.update(0.5).born[weight].flatten().nonzero().flatten().tolist())] += 1
    # Position 1 stays; every pair of the other seven is equally likely.
    pairs = list(itertools.combinations([0, 2, 3, 4, 5, 6, 7], 2))
    expected = draws / len(pairs)
    assert seen.keys() <= set(pairs)
    # Quantile 0.9999 of the chi-square distribution with 20 degrees of freedom.
    assert sum((seen[pair] - expected) ** 2 / expected for pair in pairs) < 52.39


def test_growth_depends_on_seed_number_and_tensor_and_on_nothing_else() -> None:
    def born_after(seed: int, earlier: int, noise: int = 0) -> list[Tensor]:
        module = nn.ParameterList([nn.Parameter(torch.ones(20, 20)), nn.Parameter(torch.ones(20, 20))])
        state = SparseTopology(module, 0.5).state_dict()
        same_masks = dict.fromkeys(state["masks"], state["masks"]["0"])
        nn.init.ones_(module[0])
        nn.init.ones_(module[1])
        topology = SparseTopology(module, seed=seed, state={**state, "updates": earlier, "masks": same_masks})
        torch.manual_seed(noise)
        return list(topology.update(0.3).born.values())

    first = born_after(seed=0, earlier=0)
    again = born_after(seed=0, earlier=0, noise=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], born_after(seed=0, earlier=1)[0])
    assert not torch.equal(first[0], born_after(seed=1, earlier=0)[0])


def test_parameters_and_masks_stay_where_they_are_in_memory() -> None:
    module = nn.LSTM(3, 4)
    topology = SparseTopology(module, 0.5)
    before = [(p.data_ptr(), topology.masks[p].data_ptr()) for p in topology.parameters.values()]
    topology.update(0.5)
    assert [(p.data_ptr(), topology.masks[p].data_ptr()) for p in topology.parameters.values()] == before


@pytest.mark.parametrize("redistribution", ["none", "gates"])
def test_a_tensor_that_grows_sparser_beside_large_ones_keeps_a_live_weight(redistribution: str) -> None:
    torch.manual_seed(0)
    module = nn.ModuleList([*(nn.Linear(3, 2) for _ in range(20)), nn.Linear(50, 50)])
    topology = SparseTopology(module, sparsity=0.0, redistribution=redistribution)
    for density in (0.7, 0.4, 0.2, 0.1, 0.02):
        topology.update(0.5, density=density)
        assert topology.live_weights == round(density * topology.total_weights)
        assert min(sum(gates.values()) for gates in topology.live_per_gate().values()) >= 1


def test_what_grows_sparser_keeps_its_proportions_but_for_the_last_weight_of_each() -> None:
    small, large = nn.Linear(2, 1, bias=False), nn.Linear(99, 2, bias=False)
    topology = SparseTopology(nn.ModuleList([small, large]), sparsity=0.0)
    topology.update(0.5, density=0.1)  # 20 of 200: by proportion 0.2 of them for the first
    assert [sum(gates.values()) for gates in topology.live_per_gate().values()] == [1, 19]
