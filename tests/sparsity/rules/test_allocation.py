"""How many live weights each tensor gets: exact counts, whatever the shapes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_sparse_rnn.sparsity import SparseTopology
from lightning_sparse_rnn.sparsity.rules.allocation import ALLOCATIONS

Shape = tuple[int, ...]

shape = st.lists(st.integers(1, 30), min_size=2, max_size=4).map(tuple)
shapes = st.lists(shape, min_size=1, max_size=6).map(lambda found: {f"w{i}": each for i, each in enumerate(found)})
density = st.floats(0.001, 1.0)
PROPORTIONAL = {
    "erdos_renyi": lambda shape: (shape[0] + shape[1]) / (shape[0] * shape[1]),
    "erdos_renyi_kernel": lambda shape: sum(shape) / math.prod(shape),
}


def language_model(tied: bool = False) -> nn.ModuleDict:
    module = nn.ModuleDict({"embedding": nn.Embedding(30, 10), "rnn": nn.LSTM(10, 10), "decoder": nn.Linear(10, 30)})
    if tied:
        module["decoder"].weight = module["embedding"].weight
    return module


def counts(topology: SparseTopology) -> dict[str, int]:
    return {name: int(topology.masks[parameter].sum()) for name, parameter in topology.parameters.items()}


@given(shapes, density)
def test_uniform_gives_every_tensor_its_rounded_share(shapes: dict[str, Shape], density: float) -> None:
    counts = ALLOCATIONS["uniform"](shapes, density)
    assert counts == {name: round(density * math.prod(shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", PROPORTIONAL)
@given(shapes=shapes, density=density)
def test_proportional_totals_are_exact_and_no_tensor_overflows(
    name: str, shapes: dict[str, Shape], density: float
) -> None:
    counts = ALLOCATIONS[name](shapes, density)
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == round(density * sum(math.prod(shape) for shape in shapes.values()))
    assert all(0 <= count <= math.prod(shapes[tensor]) for tensor, count in counts.items())


@pytest.mark.parametrize("name", PROPORTIONAL)
@given(shapes=shapes, density=density)
def test_densities_of_uncapped_tensors_are_in_proportion(name: str, shapes: dict[str, Shape], density: float) -> None:
    counts = ALLOCATIONS[name](shapes, density)
    raw = {tensor: PROPORTIONAL[name](shape) for tensor, shape in shapes.items()}
    uncapped = [tensor for tensor in shapes if counts[tensor] < math.prod(shapes[tensor]) - 1]
    # A count is less than one away from its ideal, which is scale · raw · numel with one scale for all.
    lowest = max(((counts[t] - 1) / (raw[t] * math.prod(shapes[t])) for t in uncapped), default=0.0)
    highest = min(((counts[t] + 1) / (raw[t] * math.prod(shapes[t])) for t in uncapped), default=1.0)
    assert lowest <= highest + 1e-9
    # Who is capped would have been given too much at that scale.
    for tensor in shapes.keys() - set(uncapped):
        assert highest * raw[tensor] >= 1.0 - 2 / math.prod(shapes[tensor]) - 1e-9 or not uncapped


def test_values_by_hand() -> None:
    # Ratios (10 + 10)/100 = 0.2 and (20 + 5)/100 = 0.25; 60 of 200 weights: 60 · 20/45 = 26.67 and 33.33.
    assert ALLOCATIONS["erdos_renyi"]({"a": (10, 10), "b": (20, 5)}, 0.3) == {"a": 27, "b": 33}
    # At one scale b would get 60 · 4/24 = 10 live weights and has room for 4; the other 56 go to a.
    assert ALLOCATIONS["erdos_renyi"]({"a": (10, 10), "b": (2, 2)}, 60 / 104) == {"a": 56, "b": 4}
    assert ALLOCATIONS["uniform"]({"a": (3, 5), "b": (1, 7)}, 0.33) == {"a": 5, "b": 2}


def test_the_kernel_variant_differs_only_for_more_than_two_dimensions() -> None:
    flat = {"a": (8, 6), "b": (5, 20)}
    assert ALLOCATIONS["erdos_renyi"](flat, 0.3) == ALLOCATIONS["erdos_renyi_kernel"](flat, 0.3)
    # Ratios (4 + 4)/16 and (8 + 2)/16 over the first two dimensions; 14/144 and 10/16 over all.
    kernels = {"conv": (4, 4, 3, 3), "linear": (8, 2)}
    assert ALLOCATIONS["erdos_renyi"](kernels, 0.2) == {"conv": 28, "linear": 4}
    assert ALLOCATIONS["erdos_renyi_kernel"](kernels, 0.1) == {"conv": 9, "linear": 7}


# ---------------------------------------------------------------------------------------------- densities by pattern


def test_densities_by_pattern_and_the_rest_shared_out_exactly() -> None:
    # 300 + 400 + 400 + 300 = 1400 weights, 420 of them live; 45 and 90 are given, and 285 are left for 800 positions.
    topology = SparseTopology(language_model(), 0.7, allocation={"embed*": 0.15, "decoder.weight": 0.3})
    assert counts(topology) == {
        "embedding.weight": 45,
        "rnn.weight_ih_l0": 143,
        "rnn.weight_hh_l0": 142,
        "decoder.weight": 90,
    }
    assert topology.live_weights == 420


def test_the_first_pattern_that_matches_counts_and_any_name_of_a_tied_tensor_does() -> None:
    first = counts(SparseTopology(language_model(), 0.5, allocation={"*hh*": 0.9, "rnn.*": 0.25, "decoder*": 0.5}))
    assert (first["rnn.weight_hh_l0"], first["rnn.weight_ih_l0"], first["decoder.weight"]) == (360, 100, 150)
    assert (
        counts(SparseTopology(language_model(tied=True), 0.5, allocation={"decoder.*": 0.1}))["embedding.weight"] == 30
    )


@given(share=st.floats(0.05, 0.95), sparsity=st.floats(0.3, 0.7))
def test_the_total_is_exact(share: float, sparsity: float) -> None:
    topology = SparseTopology(language_model(), sparsity, allocation={"embedding*": share})
    assert topology.live_weights == round((1.0 - sparsity) * 1400)
    assert counts(topology)["embedding.weight"] == round(share * 300)


@pytest.mark.parametrize(
    ("densities", "sparsity", "said"),
    [
        ({"lstm*": 0.5}, 0.5, r"`allocation` pattern 'lstm\*' matches none of: embedding\.weight, rnn"),
        ({"rnn*": 0.9}, 0.6, r"give 720 of 1400 weights .* room for 2 to 600: expected `sparsity` between 0\.\d+ and"),
        ({"rnn*": 0.1}, 0.3, r"give 80 of 1400 weights .* 0\.514286 and 0\.941429, got 0\.3"),
        ({"*": 0.5}, 0.6, r"give 700 of 1400 weights .* room for 0 to 0: expected `sparsity` between 0\.5 and 0\.5"),
    ],
)
def test_densities_that_cannot_be(densities: dict[str, Any], sparsity: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SparseTopology(language_model(), sparsity, allocation=densities)


def test_densities_of_all_tensors_make_the_sparsity() -> None:
    assert SparseTopology(language_model(), 0.5, allocation={"*": 0.5}).live_weights == 700
