"""Rules of one's own, and what a wrong one is told."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity import Positions, SparseTopology, chooses_own_count, needs
from lightning_sparse_rnn.sparsity.numerics.ranking import largest
from lightning_sparse_rnn.sparsity.rules.growth import GROWTH


@needs("gradients")
def steepest(live: Positions, count: int) -> Tensor:
    """Prune where the gradient is largest."""
    return largest(live.gradients.abs(), count)


def last(free: Positions, count: int) -> Tensor:
    """Regrow the last positions."""
    return torch.arange(len(free)) >= len(free) - count


def module() -> nn.ParameterList:
    torch.manual_seed(0)
    return nn.ParameterList([nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(6, 5))])


def gradients(topology: SparseTopology) -> dict[Tensor, Tensor]:
    return {parameter: torch.randn_like(parameter) for parameter in topology.parameters.values()}


@pytest.mark.parametrize("by_path", [True, False])
def test_rules_of_ones_own_are_given_as_functions_or_by_import_path(by_path: bool) -> None:
    path = f"{__name__}."
    topology = SparseTopology(
        module(),
        0.5,
        pruning=f"{path}steepest" if by_path else steepest,
        growth=f"{path}last" if by_path else last,
        allocation=f"{path}all_but_five" if by_path else all_but_five,
        redistribution=f"{path}to_the_first" if by_path else to_the_first,
    )
    assert topology.needs == {"gradients"}
    given = gradients(topology)
    first, second = topology.parameters.values()
    live = topology.masks[second].bool().clone()
    update = topology.update(0.2, gradients=given)
    assert [mask.count_nonzero() for mask in topology.masks.values()] == [20, 20]
    # Three of 15 and five of 25 are pruned; the first tensor has room for all eight, and its last free ones come back.
    assert update.born[first].sum() == 8
    assert update.born[second].sum() == 0
    assert (live & ~topology.masks[second].bool()).sum() == 5
    gone = given[second][live & ~topology.masks[second].bool()].abs().min()
    assert gone >= given[second][topology.masks[second].bool()].abs().max()


def all_but_five(shapes: dict[str, tuple[int, ...]], density: float) -> dict[str, int]:
    return {name: math.prod(shape) - 5 for name, shape in shapes.items()}


def to_the_first(tensors: list[Any]) -> list[float]:
    return [1.0, *[0.0] * (len(tensors) - 1)]


@pytest.mark.parametrize("option", ["allocation", "pruning", "growth", "redistribution"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("magnitud", r"Unknown `{}` 'magnitud'\. Known: .*import path"),
        ("no.such.module.rule", r"Cannot import `{}` 'no\.such\.module\.rule': No module named 'no'"),
        ("math.no_such", r"Cannot import `{}` 'math\.no_such': .*Known without a path: "),
        ("math.pi", r"Expected `{}` 'math\.pi' to be a function, got 3\.14"),
        (3, r"Expected `{}` to be a name, an import path or a function, got 3"),
    ],
)
def test_rules_that_are_not_there(option: str, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.format(option)):
        SparseTopology(module(), 0.5, **{option: given})


@pytest.mark.parametrize("option", ["pruning", "growth"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n, count: torch.ones(n), r"to return a boolean tensor of shape \(\d+,\), got torch\.float32"),
        (lambda n, count: torch.ones(n + 1, dtype=torch.bool), r"to return a boolean tensor of shape"),
        (lambda n, count: None, r"to return a boolean tensor of shape \(\d+,\), got None"),
        (lambda n, count: torch.ones(n, dtype=torch.bool), r"to mark exactly \d+ of \d+ positions, got \d+"),
        (lambda n, count: torch.zeros(n, dtype=torch.bool), r"to mark exactly \d+ of \d+ positions, got 0"),
    ],
)
def test_a_rule_that_answers_something_else_is_refused_and_nothing_is_lost(
    option: str, answer: Any, message: str
) -> None:
    topology = SparseTopology(module(), 0.5, **{option: lambda positions, count: answer(len(positions), count)})
    before = {p: (p.detach().clone(), mask.clone()) for p, mask in topology.masks.items()}
    with pytest.raises(ValueError, match=f"Expected a {option} rule {message}"):
        topology.update(0.3)
    assert topology.updates == 0
    for parameter, (weight, mask) in before.items():
        assert torch.equal(parameter, weight)
        assert torch.equal(topology.masks[parameter], mask)


def test_what_a_pruning_rule_remembered_is_lost_with_its_update() -> None:
    growing = True

    def fails(free: Positions, count: int) -> Tensor:
        if not growing:
            raise ValueError("no growth")
        return GROWTH["random"](free, count)

    topology = SparseTopology(module(), 0.5, pruning="threshold", growth=fails, redistribution="live")
    topology.update(0.3)
    before = topology.state_dict()
    growing = False
    for _ in range(2):
        with pytest.raises(ValueError, match="no growth"):
            topology.update(0.6)
        assert topology.state_dict()["memory"] == before["memory"]


@pytest.mark.parametrize("shares", [[1.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_shares_that_are_none(shares: list[float]) -> None:
    topology = SparseTopology(module(), 0.5, redistribution=lambda tensors: shares)
    with pytest.raises(ValueError, match="Expected a redistribution to return 2 finite numbers of at least 0"):
        topology.update(0.3)


@pytest.mark.parametrize(
    "counts", [{"0": 5}, {"0": 5, "1": 31}, {"0": 5, "1": -1}, {"0": 5, "1": 2.5}, {"0": 5, "1": 0}]
)
def test_an_allocation_that_does_not_fit(counts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected an allocation|no live weight"):
        SparseTopology(module(), 0.5, allocation=lambda shapes, density: counts)


def test_what_a_rule_does_not_say_it_needs() -> None:
    topology = SparseTopology(module(), 0.5, growth=lambda free, count: free.gradients > 0)
    with pytest.raises(LookupError, match=r"looks at gradients must say so: mark it with @needs\('gradients'\)"):
        topology.update(0.3)
    with pytest.raises(ValueError, match="A rule can need weights, gradients, momenta, signs, got colours"):
        needs("colours")


def test_gradients_that_are_missing_or_not_finite() -> None:
    topology = SparseTopology(module(), 0.5, growth="gradient")
    first, second = topology.parameters.values()
    with pytest.raises(ValueError, match=r"look at gradients, and these have none: 0, 1\."):
        topology.update(0.3)
    with pytest.raises(ValueError, match=r"these have none: 1\."):
        topology.update(0.3, gradients={first: torch.ones_like(first)})
    bad = {first: torch.ones_like(first), second: torch.full_like(second, math.nan)}
    with pytest.raises(FloatingPointError, match="'1' has gradients that are NaN or infinite"):
        topology.update(0.3, gradients=bad)
    assert topology.updates == 0


def test_rules_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="`growth=None` goes with"):
        SparseTopology(module(), 0.5, pruning="sign_flip", growth=None)
    with pytest.raises(ValueError, match="`growth=None` goes with"):
        SparseTopology(module(), 0.5, growth=None, redistribution="live")


def test_a_rule_that_chooses_its_own_count_moves_so_many() -> None:
    @chooses_own_count
    def three(live: Positions, count: int) -> Tensor:
        return torch.arange(len(live)) < 3

    topology = SparseTopology(module(), 0.5, pruning=three)
    update = topology.update(0.0)
    assert {name: sum(gates.values()) for name, gates in update.pruned.items()} == {"0": 3, "1": 3}
    assert {name: sum(gates.values()) for name, gates in update.regrown.items()} == {"0": 3, "1": 3}
