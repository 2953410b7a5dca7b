"""What a rule is: what each kind is given and returns, and what a rule says about itself.

=====================  ==========================================  =================================================
option                 given                                       returns
=====================  ==========================================  =================================================
``pruning, growth``    :class:`Positions`, a count                 boolean mask over them, so many entries true
``redistribution``     the tensors' :class:`Claim`                 numbers in proportion to which they regrow
``allocation``         shapes by name, a density                   numbers of live weights by name
the same, if it        :class:`Quantities`, a density              boolean masks by name, flattened like these
``needs`` something
``initial_scale``      mask, whether it is of an embedding         a factor, or a tensor of them
``schedule``           share of training done, first, last value   the value now
=====================  ==========================================  =================================================

A rule that looks at more than weights says so with :func:`needs`. All of them are functions of what they are given:
what is random draws from the positions' generator, and what is to be remembered goes into their memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from lightning_sparse_rnn.sparsity.quantities import Quantities
from lightning_sparse_rnn.sparsity.rules.positions import Positions

__all__ = [
    "QUANTITIES",
    "AllocationRule",
    "Claim",
    "InitialScale",
    "PositionRule",
    "ShareRule",
    "chooses_own_count",
    "needed_by",
    "needs",
]

Rule = TypeVar("Rule", bound=Callable[..., Any])

#: What a rule may ask for: see :class:`~lightning_sparse_rnn.sparsity.quantities.Quantities`. Pruning and growth rules
#: have the weights in any case.
QUANTITIES = ("weights", "gradients", "momenta", "signs")


@dataclass(frozen=True)
class Claim:
    """What a tensor can base its share of the weights to regrow on.

    Attributes:
        live: its live positions before the update.
        kept: how many of them this update has left.
    """

    live: Positions
    kept: int


#: A pruning or growth rule: from positions to choose from, and how many, to a boolean mask over them.
PositionRule = Callable[[Positions, int], Tensor]
#: From the tensors' claims to numbers of at least 0, in proportion to which they share out the weights to regrow.
ShareRule = Callable[[Sequence[Claim]], Sequence[float]]
#: From the tensors' shapes by name and the density of all, in (0, 1], to numbers of live weights by name, which are
#: placed at random; or, marked with :func:`needs`, from these quantities and the density to masks by name.
AllocationRule = (
    Callable[[Mapping[str, tuple[int, ...]], float], Mapping[str, int]]
    | Callable[[Quantities, float], Mapping[str, Tensor]]
)
#: From a tensor's mask (boolean, of the tensor's shape) and whether the tensor is an embedding, whose rows are looked
#: up and never summed, to what its live weights are multiplied with: a number, or a tensor that broadcasts to the mask.
InitialScale = Callable[[Tensor, bool], float | Tensor]


def needs(*quantities: str) -> Callable[[Rule], Rule]:
    """Mark a rule as one that looks at these of :data:`QUANTITIES`, so that they are there when it is called.

    >>> @needs("gradients")
    ... def steepest(free: Positions, count: int) -> Tensor:
    ...     return free.gradients.abs() >= free.gradients.abs().sort(descending=True).values[count - 1]
    >>> needed_by(steepest)
    frozenset({'gradients'})

    Raises:
        ValueError: there is no such quantity.
    """
    unknown = set(quantities) - set(QUANTITIES)
    if unknown:
        raise ValueError(f"A rule can need {', '.join(QUANTITIES)}, got {', '.join(sorted(unknown))}.")

    def mark(rule: Rule) -> Rule:
        rule.needs = frozenset(quantities)  # type: ignore[attr-defined]
        return rule

    return mark


def needed_by(rule: Any) -> frozenset[str]:
    """Return what a rule was marked to need."""
    needed: frozenset[str] = getattr(rule, "needs", frozenset())
    return needed


def chooses_own_count(rule: Rule) -> Rule:
    """Mark a pruning rule as one that takes ``count`` for advice, and may mark more weights or fewer.

    >>> @chooses_own_count
    ... def tiny(live: Positions, count: int) -> Tensor:
    ...     return live.weights.abs() < 1e-3
    """
    rule.chooses_own_count = True  # type: ignore[attr-defined]
    return rule
