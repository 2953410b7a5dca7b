"""Which weights are live at the start, or how many each tensor gets. All counts are exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.apportion import apportion
from lightning_sparse_rnn.sparsity.numerics.ranking import smallest
from lightning_sparse_rnn.sparsity.quantities import Quantities
from lightning_sparse_rnn.sparsity.rules.contract import AllocationRule, needed_by, needs
from lightning_sparse_rnn.utilities.lookup import find_rule

__all__ = [
    "ALLOCATIONS",
    "AllocationRule",
    "by_pattern",
    "check_densities",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "find_allocation",
    "nonzero",
    "snip",
    "uniform",
]

Shape = tuple[int, ...]


def uniform(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
    """Give every tensor the same density: ``round(density · numel)`` live weights each (the paper's choice)."""
    return {name: round(density * math.prod(shape)) for name, shape in shapes.items()}


def erdos_renyi(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
    """Give each tensor a density in proportion to ``(n_in + n_out) / (n_in · n_out)`` (Mocanu et al. 2018, eq. 1).

    The sum of all counts is exactly ``round(density · total)``; a tensor that would pass density 1 is dense, and the
    others share the rest.
    """
    return _in_proportion(shapes, density, [sum(shape[:2]) / math.prod(shape[:2]) for shape in shapes.values()])


def erdos_renyi_kernel(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
    """Like :func:`erdos_renyi`, over all dimensions: in proportion to ``sum(shape) / prod(shape)`` (Evci et al. 2020).

    Differs from :func:`erdos_renyi` only for tensors with more than two dimensions.
    """
    return _in_proportion(shapes, density, [sum(shape) / math.prod(shape) for shape in shapes.values()])


def by_pattern(
    densities: Mapping[str, float], aliases: Mapping[str, Sequence[str]]
) -> Callable[[Mapping[str, Shape], float], dict[str, int]]:
    """Return a rule that gives tensors the densities of the first pattern that matches them, in (0, 1].

    The others share what that leaves of ``round(density · total)``, at one density.

    Args:
        densities: by shell pattern over parameter names.
        aliases: all names of each tensor, by the name it has in the shapes.
    """

    def rule(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        counts: dict[str, int] = {}
        for pattern, wanted in densities.items():
            matching = [n for n in shapes if any(fnmatchcase(alias, pattern) for alias in aliases.get(n, [n]))]
            if not matching:
                raise ValueError(f"`allocation` pattern {pattern!r} matches none of: {', '.join(shapes)}.")
            counts.update({name: round(wanted * sizes[name]) for name in matching if name not in counts})
        others = [name for name in shapes if name not in counts]
        total, given = round(density * sum(sizes.values())), sum(counts.values())
        left, room = total - given, sum(sizes[name] for name in others)
        if not len(others) <= left <= room:
            least, most = (given + extra for extra in (len(others), room))
            raise ValueError(
                f"The densities of `allocation` give {given} of {sum(sizes.values())} weights to the tensors they "
                f"match, and the others have room for {len(others)} to {room}: expected `sparsity` between "
                f"{1 - most / sum(sizes.values()):.6g} and {1 - least / sum(sizes.values()):.6g}, got "
                f"{1 - density:.6g}."
            )
        limits = [sizes[name] for name in others]
        counts.update(zip(others, apportion(left, limits, limits), strict=True))
        return {name: counts[name] for name in shapes}

    return rule


@needs("weights")
def nonzero(given: Quantities, density: float) -> dict[str, Tensor]:
    """Take the weights that are not zero, whatever their number."""
    return {name: weights != 0 for name, weights in given.weights.items()}


@needs("weights", "gradients")
def snip(given: Quantities, density: float) -> dict[str, Tensor]:
    """Keep ``round(density · total)`` weights of the model, those of largest ``|w·g|`` (Lee et al. 2019, eq. 6)."""
    assert given.gradients is not None
    saliency = _joined(given.weights).mul_(_joined({name: given.gradients[name] for name in given.weights})).abs_()
    gone = smallest(saliency, len(saliency) - round(density * len(saliency)))
    parts = gone.logical_not_().split([len(flat) for flat in given.weights.values()])
    return {name: part.to(given.weights[name].device) for name, part in zip(given.weights, parts, strict=True)}


ALLOCATIONS: dict[str, AllocationRule] = {
    "uniform": uniform,
    "erdos_renyi": erdos_renyi,
    "erdos_renyi_kernel": erdos_renyi_kernel,
    "nonzero": nonzero,
    "snip": snip,
}


def find_allocation(
    given: str | AllocationRule | Mapping[str, float], aliases: Mapping[str, Sequence[str]] | None = None
) -> AllocationRule:
    """Return the allocation ``given`` by name, import path, densities by pattern, or itself.

    Raises:
        ValueError: there is none of that name, it cannot be imported, or it needs what there is not at the start.
    """
    if isinstance(given, Mapping):
        return by_pattern(check_densities(given), aliases or {})
    rule: AllocationRule = find_rule("allocation", given, ALLOCATIONS)
    if unknown := needed_by(rule) - {"weights", "gradients"}:
        raise ValueError(f"An allocation can need weights and gradients, got one that needs {', '.join(unknown)}.")
    return rule


def check_densities(densities: Mapping[str, float]) -> Mapping[str, float]:
    """Raise a ``ValueError`` unless all are numbers in (0, 1]."""
    for pattern, density in densities.items():
        if isinstance(density, bool) or not isinstance(density, int | float) or not 0.0 < density <= 1.0:
            raise ValueError(f"Expected `allocation` to give {pattern!r} a density in (0, 1], got {density!r}.")
    return densities


def _in_proportion(shapes: Mapping[str, Shape], density: float, raw: Sequence[float]) -> dict[str, int]:
    """Share ``round(density · total)`` live weights so that densities are in proportion to ``raw``, capped at 1."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    shares = [each * size for each, size in zip(raw, sizes, strict=True)]
    return dict(zip(shapes, apportion(round(density * sum(sizes)), shares, sizes), strict=True))


def _joined(flat: Mapping[str, Tensor]) -> Tensor:
    device = next(iter(flat.values())).device
    return torch.cat([part.to(device) for part in flat.values()])
