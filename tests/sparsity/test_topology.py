"""Which weights are live: counts, zeros, choice of parameters, saved state and refused input."""

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity import SparseTopology

densities = st.floats(0.15, 1.0)
shapes = st.lists(st.lists(st.integers(2, 9), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5)


def weights_of(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes])


def language_model() -> nn.ModuleDict:
    return nn.ModuleDict({"embedding": nn.Embedding(11, 4), "rnn": nn.LSTM(4, 6, 2), "decoder": nn.Linear(6, 11)})


def masks_by_name(topology: SparseTopology) -> dict[str, Tensor]:
    return {name: topology.masks[parameter] for name, parameter in topology.parameters.items()}


def equal_masks(one: SparseTopology, other: SparseTopology) -> bool:
    first, second = masks_by_name(one), masks_by_name(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------------------------------------- at the start


@given(shapes, densities)
def test_uniform_counts_are_exact_and_dead_weights_zero(shapes: list[tuple[int, ...]], density: float) -> None:
    topology = SparseTopology(weights_of(*shapes), 1.0 - density)
    for parameter, mask in topology.masks.items():
        count = round((1.0 - (1.0 - density)) * parameter.numel())
        assert int(mask.sum()) == count
        assert torch.count_nonzero(parameter) == count
        assert torch.equal(mask, (parameter != 0).float())


@pytest.mark.parametrize("allocation", ["erdos_renyi", "erdos_renyi_kernel"])
@given(shapes=shapes, density=st.floats(0.5, 1.0))
def test_other_totals_are_exact(allocation: str, shapes: list[tuple[int, ...]], density: float) -> None:
    topology = SparseTopology(weights_of(*shapes), 1.0 - density, allocation=allocation)
    total = sum(math.prod(shape) for shape in shapes)
    assert topology.total_weights == total
    assert topology.live_weights == round((1.0 - (1.0 - density)) * total)
    assert topology.sparsity == 1.0 - topology.live_weights / total
    for parameter, mask in topology.masks.items():
        assert torch.equal(parameter != 0, mask.bool())


def test_live_weights_keep_their_values_and_dense_ones_are_not_touched() -> None:
    module = language_model()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    masks = masks_by_name(SparseTopology(module, 0.67))
    assert masks.keys() == {name for name in before if "bias" not in name}
    for name, parameter in module.named_parameters():
        expected = before[name] * masks[name] if name in masks else before[name]
        assert torch.equal(parameter, expected)


def test_zero_sparsity_is_dense() -> None:
    module = language_model()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    topology = SparseTopology(module, 0.0)
    assert topology.sparsity == 0.0
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())


def test_nonzero_takes_over_the_zeros_that_are_there() -> None:
    module = weights_of((5, 4), (3, 3))
    with torch.no_grad():
        module[0][1:3] = 0.0
    topology = SparseTopology(module, allocation="nonzero")
    assert topology.live_weights == 12 + 9
    assert torch.equal(topology.masks[module[0]], (module[0] != 0).float())


def test_gate_densities_by_hand() -> None:
    module = nn.LSTM(3, 2, bias=False)
    with torch.no_grad():
        module.weight_ih_l0.fill_(1.0)[2:4] = 0.0
        module.weight_hh_l0.fill_(1.0)[7, 0] = 0.0
    assert SparseTopology(module, allocation="nonzero").gate_densities() == {
        "weight_ih_l0": {"input": 1.0, "forget": 0.0, "cell": 1.0, "output": 1.0},
        "weight_hh_l0": {"input": 1.0, "forget": 1.0, "cell": 1.0, "output": 0.75},
    }


def test_seeds_and_tensors_make_different_masks_and_equal_seeds_equal_ones() -> None:
    def make(seed: int) -> SparseTopology:
        return SparseTopology(weights_of((20, 20), (20, 20)), 0.5, seed=seed)

    first, again, other = make(3), make(3), make(4)
    assert equal_masks(first, again)
    assert not equal_masks(first, other)
    one, two = first.masks.values()
    assert not torch.equal(one, two)


def test_initial_masks_favour_no_position_and_no_pair() -> None:
    draws, size, count = 600, 12, 4
    module = nn.ParameterList([nn.Parameter(torch.ones(3, 4))])
    masks = torch.stack(
        [
            next(iter(SparseTopology(module, 1 - count / size, seed=seed).masks.values())).flatten()
            for seed in range(draws)
        ]
    )
    together = masks.T @ masks
    single = count / size
    both = single * (count - 1) / (size - 1)
    # Five standard deviations of each binomial count.
    assert (together.diagonal() - draws * single).abs().max() < 5 * (draws * single * (1 - single)) ** 0.5
    pairs = together[~torch.eye(size, dtype=torch.bool)]
    assert (pairs - draws * both).abs().max() < 5 * (draws * both * (1 - both)) ** 0.5


def test_draws_leave_the_global_generator_alone() -> None:
    module = language_model()
    before = torch.get_rng_state()
    topology = SparseTopology(module, 0.5)
    topology.update(0.5)
    assert torch.equal(torch.get_rng_state(), before)


# -------------------------------------------------------------------------------------- precisions and memory layouts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("redistribution", ["none", "gates", "layer", "model"])
def test_other_precisions(dtype: torch.dtype, redistribution: str) -> None:
    module = language_model().to(dtype)
    topology = SparseTopology(module, 0.5, redistribution=redistribution)
    live = topology.live_weights
    update = topology.update(0.5)
    assert topology.live_weights == live
    for parameter, mask in topology.masks.items():
        assert mask.dtype == dtype
        assert not parameter[(mask == 0) | update.born[parameter]].any()


def test_masks_follow_a_module_that_changes_precision() -> None:
    module = language_model()
    topology = SparseTopology(module, 0.5)
    module.double()
    topology.update(0.5)
    assert all(mask.dtype == torch.float64 for mask in topology.masks.values())
    assert all(torch.count_nonzero(p) <= mask.sum() for p, mask in topology.masks.items())


@pytest.mark.parametrize("allocation", ["uniform", "nonzero"])
def test_parameters_that_are_not_contiguous(allocation: str) -> None:
    module = nn.Module()
    module.transposed = nn.Parameter(torch.randn(6, 8).T)
    module.conv = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    assert not module.transposed.is_contiguous()
    assert not module.conv.weight.is_contiguous()
    if allocation == "nonzero":
        SparseTopology(module, 0.5)
    topology = SparseTopology(module, 0.5, allocation=allocation)
    before = {name: mask.clone() for name, mask in masks_by_name(topology).items()}
    weights = {name: parameter.detach().clone() for name, parameter in topology.parameters.items()}
    assert topology.gate_densities() == {"transposed": {"all": 0.5}, "conv.weight": {"all": 0.5}}
    born = topology.update(0.5).born
    for name, parameter in topology.parameters.items():
        assert torch.equal(
            parameter.nonzero(), ((before[name] * masks_by_name(topology)[name]).bool() & ~born[parameter]).nonzero()
        )
        kept = parameter != 0
        assert torch.equal(parameter[kept], weights[name][kept])
        assert weights[name][kept].abs().min() >= weights[name][before[name].bool() & ~kept].abs().max()
    resumed = SparseTopology(module, state=topology.state_dict())
    assert equal_masks(resumed, topology)
    assert resumed.gate_densities() == topology.gate_densities()


# ------------------------------------------------------------------------------------------------- saved state


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@given(shapes, st.floats(0.5, 1.0), st.integers(0, 3))
def test_state_survives_a_file_and_goes_on_alike(shapes: list[tuple[int, ...]], density: float, updates: int) -> None:
    module = weights_of(*shapes)
    topology = SparseTopology(module, 1.0 - density, seed=1)
    for _ in range(updates):
        topology.update(0.3)
    state = through_a_file(topology.state_dict())
    copy = weights_of(*shapes)
    copy.load_state_dict(module.state_dict())
    for resumed in (SparseTopology(copy, seed=1, state=state), SparseTopology(copy, 0.5, seed=1)):
        resumed.load_state_dict(state)
        copy.load_state_dict(module.state_dict())
        assert resumed.updates == updates
        assert equal_masks(resumed, topology)
    topology.update(0.4)
    resumed.update(0.4)
    assert equal_masks(resumed, topology)
    assert all(torch.equal(one, other) for one, other in zip(module, copy, strict=True))


def test_saved_masks_take_one_bit_a_weight_and_saving_changes_nothing() -> None:
    topology = SparseTopology(weights_of((16, 10), (5, 5)), 0.5)
    before = {name: mask.clone() for name, mask in masks_by_name(topology).items()}
    state = topology.state_dict()
    assert {name: (packed.dtype, packed.numel()) for name, packed in state["masks"].items()} == {
        "0": (torch.uint8, 20),
        "1": (torch.uint8, 4),
    }
    topology.update(0.5)
    topology.load_state_dict(state)
    assert all(torch.equal(mask, before[name]) for name, mask in masks_by_name(topology).items())
    assert topology.updates == 0


def test_state_of_another_module_names_the_differences_and_changes_nothing() -> None:
    module = language_model()
    topology = SparseTopology(module, 0.5)
    other = nn.ModuleDict({"embedding": nn.Embedding(12, 4), "rnn": nn.LSTM(4, 6, 1), "head": nn.Linear(6, 11)})
    state = SparseTopology(other, 0.5).state_dict()
    before = {name: mask.clone() for name, mask in masks_by_name(topology).items()}
    with pytest.raises(ValueError, match="other tensors") as raised:
        topology.load_state_dict(state)
    said = str(raised.value)
    assert "head.weight (11, 6)" in said
    assert "decoder.weight (11, 6)" in said
    assert "rnn.weight_hh_l1 (24, 6)" in said
    assert "embedding.weight is (12, 4) in the saved one and (11, 4) here" in said
    assert "rnn.weight_hh_l0" not in said
    assert all(torch.equal(mask, before[name]) for name, mask in masks_by_name(topology).items())


# ------------------------------------------------------------------------------------------------ refused input


@pytest.mark.parametrize(
    ("sparsity", "error", "said"),
    [
        (67, ValueError, r"`sparsity` in \[0, 1\), got 67\. Did you mean 0\.67\?"),
        (1.0, ValueError, r"`sparsity` in \[0, 1\), got 1\.0"),
        (-0.1, ValueError, r"`sparsity` in \[0, 1\), got -0\.1"),
        (float("nan"), ValueError, r"`sparsity` in \[0, 1\), got nan"),
        (True, TypeError, r"`sparsity` to be a number in \[0, 1\), got True \(bool\)"),
        ("a", TypeError, r"`sparsity` to be a number in \[0, 1\), got 'a' \(str\)"),
        (None, TypeError, r"`sparsity` to be a number in \[0, 1\), got None"),
    ],
)
def test_sparsity_that_is_no_share(sparsity: Any, error: type[Exception], said: str) -> None:
    module = language_model()
    before = module["decoder"].weight.clone()
    with pytest.raises(error, match=said):
        SparseTopology(module, sparsity)
    assert torch.equal(module["decoder"].weight, before)


def test_numpy_numbers_are_as_good_as_pythons() -> None:
    one, other = (SparseTopology(weights_of((300, 100)), sparsity) for sparsity in (np.float32(0.25), 0.25))
    assert one.live_weights == other.live_weights
    assert type(one.update(np.float32(0.5)).rate) is float  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("allocation", "uniform, erdos_renyi, erdos_renyi_kernel, nonzero"),
        ("pruning", "magnitude"),
        ("growth", "random"),
        ("redistribution", "none, gates, layer, model"),
    ],
)
def test_unknown_names_list_the_known(option: str, known: str) -> None:
    with pytest.raises(ValueError, match=rf"Unknown `{option}` 'gate'\. Known: ") as raised:
        SparseTopology(language_model(), 0.5, **{option: "gate"})
    listed = str(raised.value).split("Known: ")[1].rstrip(".").split(", ")
    assert set(known.split(", ")) <= set(listed)


def test_a_tensor_without_live_weights_is_named() -> None:
    module = weights_of((10, 10), (1, 2))
    with pytest.raises(ValueError, match=r"no live weight: 1 \(1, 2\)\. Lower the sparsity, or .* `exclude`"):
        SparseTopology(module, 0.9)
    assert torch.count_nonzero(module[0]) == 100


@pytest.mark.parametrize("rate", [1.0, -0.1, 80, float("nan")])
def test_a_rate_that_is_no_share_is_refused_before_anything_changes(rate: float) -> None:
    topology = SparseTopology(weights_of((5, 5)), 0.5)
    before = topology.state_dict()
    with pytest.raises(ValueError, match=r"Expected `rate` in \[0, 1\)"):
        topology.update(rate)
    after = topology.state_dict()
    assert after["updates"] == before["updates"]
    assert torch.equal(after["masks"]["0"], before["masks"]["0"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["live", "dead"])
def test_diverged_weights_are_named_and_the_topology_stays(value: float, where: str) -> None:
    module = language_model()
    topology = SparseTopology(module, 0.5)
    before = topology.state_dict()
    weight = module["rnn"].weight_hh_l1
    position = (topology.masks[weight] == (1 if where == "live" else 0)).nonzero()[3]
    with torch.no_grad():
        weight[tuple(position)] = value
    values = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    with pytest.raises(
        FloatingPointError, match=r"'rnn\.weight_hh_l1' has weights that are NaN or infinite.*lower the"
    ):
        topology.update(0.5)
    after = topology.state_dict()
    assert after["updates"] == 0
    assert all(torch.equal(after["masks"][name], packed) for name, packed in before["masks"].items())
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter, values[name], rtol=0, atol=0, equal_nan=True)


def test_large_finite_weights_are_not_taken_for_divergence() -> None:
    topology = SparseTopology(nn.ParameterList([nn.Parameter(torch.full((4, 4), 3e38))]), 0.5)
    topology.update(0.5)
    assert topology.updates == 1


@pytest.mark.parametrize("redistribution", ["none", "gates", "layer", "model", "live"])
def test_what_requires_no_gradient_now_keeps_its_live_weights(redistribution: str) -> None:
    module = nn.ModuleDict({"rnn": nn.LSTM(4, 6), "out": nn.Linear(6, 5)})
    topology = SparseTopology(module, 0.5, redistribution=redistribution)
    frozen, total = module["rnn"].weight_hh_l0.requires_grad_(False), topology.live_weights
    before = frozen.detach().clone()
    for density in (None, 0.4, 0.3):
        update = topology.update(0.5, density=density)
        assert torch.equal(frozen, before)
        assert not any(update.pruned["rnn.weight_hh_l0"].values())
        assert not update.born[frozen].any()
        assert sum(sum(gates.values()) for gates in update.regrown.values()) > 0
        assert topology.live_weights == (total if density is None else round(density * topology.total_weights))
    with pytest.raises(ValueError, match="of the live weights of parameters that are not trained"):
        topology.update(0.5, density=0.01)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    masks = [mask.clone() for mask in topology.masks.values()]
    assert topology.update(0.5).replaced == 0.0
    assert all(torch.equal(mask, old) for mask, old in zip(topology.masks.values(), masks, strict=True))


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_trained_is_what_the_caller_says_and_not_what_requires_gradients_now(growth: str) -> None:
    module = nn.ModuleDict({"generator": nn.Linear(6, 6), "critic": nn.Linear(6, 6), "fixed": nn.Linear(6, 6)})
    topology = SparseTopology(module, 0.5, growth=growth)
    trained = [*module["generator"].parameters(), *module["critic"].parameters()]
    module["critic"].requires_grad_(False)  # as `toggle_optimizer` does while the other one steps
    gradients = {parameter: torch.randn_like(parameter) for parameter in trained}
    update = topology.update(0.5, gradients=gradients, trained=trained)
    moved = {name: sum(gates.values()) for name, gates in update.regrown.items()}
    assert moved == {"generator.weight": 9, "critic.weight": 9, "fixed.weight": 0}
    update = topology.update(0.5, density=0.4, gradients=gradients, trained=trained)
    assert sum(update.live["fixed.weight"].values()) == 18
    assert topology.live_weights == round(0.4 * 108)
    if growth == "gradient":
        with pytest.raises(ValueError, match=r"these have none: critic\.weight\."):
            topology.update(0.5, gradients=dict(list(gradients.items())[:2]), trained=trained)


def test_what_was_found_in_weights_is_moved_with_draws_of_its_own() -> None:
    """With those of the run that the weights come from, an update would prune what that has born, and bear it again."""
    module = nn.Linear(40, 50)
    first = SparseTopology(module, sparsity=0.7)
    first.update(0.5)
    with torch.no_grad():
        module.weight.add_(first.masks[module.weight] * 1e-3)  # what was born is small
    found = SparseTopology(module, sparsity=0.7, allocation="nonzero")
    kept = found.masks[module.weight].clone()
    found.update(0.5)
    assert int((found.masks[module.weight] != kept).sum()) > 400
    resumed = SparseTopology(module, sparsity=0.7, state=found.state_dict())
    weights = module.weight.detach().clone()
    found.update(0.5)
    with torch.no_grad():
        module.weight.copy_(weights)
    resumed.update(0.5)
    assert torch.equal(resumed.masks[module.weight], found.masks[module.weight])
