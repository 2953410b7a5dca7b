"""Options of a topology: checked when made, plain, and the same by keyword and as one object."""

import copy
import pickle
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity import Quantities, SparseTopology, TopologyOptions, needs


def module() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"embedding": nn.Embedding(11, 4), "rnn": nn.GRU(4, 6), "decoder": nn.Linear(6, 11)})


@pytest.mark.parametrize(
    ("option", "value", "error", "said"),
    [
        ("sparsity", 67, ValueError, r"`sparsity` in \[0, 1\), got 67\. Did you mean 0\.67\?"),
        ("sparsity", "a", TypeError, r"`sparsity` to be a number"),
        ("allocation", "unifrom", ValueError, "Unknown `allocation` 'unifrom'. Known: uniform, .*nonzero, snip"),
        ("allocation", {"*": 1.5}, ValueError, r"`allocation` to give '\*' a density in \(0, 1\], got 1\.5"),
        ("allocation", {"*": True}, ValueError, "got True"),
        ("allocation", needs("momenta")(lambda given, density: {}), ValueError, "one that needs momenta"),
        ("pruning", "size", ValueError, "Unknown `pruning`"),
        ("initial_scale", "he", ValueError, "Unknown `initial_scale` 'he'. Known: none, density, fan_in"),
    ],
)
def test_wrong_options_are_refused_before_there_is_a_module(option: str, value: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        TopologyOptions(**{option: value})


def test_values_are_plain() -> None:
    options = TopologyOptions(
        include=("a*", "b"),
        exclude="c",
        gates=MappingProxyType({"a*": ("x", "y")}),
        allocation=MappingProxyType({"a": 1}),
    )
    assert (options.include, options.exclude) == (["a*", "b"], "c")
    assert (options.gates, options.allocation) == ({"a*": ["x", "y"]}, {"a": 1})
    assert pickle.loads(pickle.dumps(options)) == options == copy.deepcopy(options)


def test_one_object_makes_what_keywords_make() -> None:
    given: dict[str, Any] = {"sparsity": 0.6, "allocation": "erdos_renyi", "redistribution": "layer", "seed": 3}
    one, other = SparseTopology(module(), **given), SparseTopology.from_options(module(), TopologyOptions(**given))
    for topology in (one, other):
        topology.update(0.3)
    assert all(map(torch.equal, one.masks.values(), other.masks.values()))
    state = one.state_dict()
    again = SparseTopology.from_options(module(), TopologyOptions(**given), state=state)
    assert all(map(torch.equal, one.masks.values(), again.masks.values()))


@pytest.mark.parametrize("allocation", ["uniform", "snip"])
def test_a_ramp_starts_at_its_own_sparsity(allocation: str) -> None:
    options = TopologyOptions(0.9, allocation=allocation)
    topology = SparseTopology.from_options(module(), options, initial_sparsity=0.5)
    if allocation == "snip":
        topology.allocate({p: torch.randn_like(p) for p in topology.parameters.values()})
    assert topology.live_weights == round(0.5 * topology.total_weights)
    with pytest.raises(ValueError, match="Expected `initial_sparsity` in"):
        SparseTopology.from_options(module(), options, initial_sparsity=50)


def test_an_allocation_says_what_it_reads() -> None:
    @needs("weights")
    def largest_half(given: Quantities, density: float) -> dict[str, Tensor]:
        return {name: flat.abs() >= flat.abs().median() for name, flat in given.weights.items()}

    reads = {a: TopologyOptions(allocation=a).reads_weights for a in ("uniform", "nonzero", "snip", largest_half)}
    assert reads == {"uniform": False, "nonzero": True, "snip": False, largest_half: True}
    waits = {a: SparseTopology(module(), allocation=a).awaits_gradients for a in reads}
    assert waits == {"uniform": False, "nonzero": False, "snip": True, largest_half: False}
    made = module()
    dense = made["decoder"].weight.detach().clone()
    mask = SparseTopology(made, allocation=largest_half).masks[made["decoder"].weight].bool()
    assert dense[mask].abs().min() > dense[~mask].abs().max()


def test_an_allocation_of_masks_that_do_not_fit() -> None:
    wrong = needs("weights")(lambda given, density: dict(given.weights))
    with pytest.raises(ValueError, match="Expected an allocation to return the boolean masks"):
        SparseTopology(module(), allocation=wrong)
