"""How many live weights each tensor gets at the start. All counts are exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from lightning_sparse_rnn.sparsity.numerics.apportion import apportion

__all__ = ["ALLOCATIONS", "AllocationRule", "erdos_renyi", "erdos_renyi_kernel", "uniform"]

Shape = tuple[int, ...]
#: From the tensors' shapes by name and the density of all, in (0, 1], to numbers of live weights by name.
AllocationRule = Callable[[Mapping[str, Shape], float], Mapping[str, int]]


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


ALLOCATIONS: dict[str, AllocationRule] = {
    "uniform": uniform,
    "erdos_renyi": erdos_renyi,
    "erdos_renyi_kernel": erdos_renyi_kernel,
}


def _in_proportion(shapes: Mapping[str, Shape], density: float, raw: Sequence[float]) -> dict[str, int]:
    """Share ``round(density · total)`` live weights so that densities are in proportion to ``raw``, capped at 1."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    shares = [each * size for each, size in zip(raw, sizes, strict=True)]
    return dict(zip(shapes, apportion(round(density * sum(sizes)), shares, sizes), strict=True))
