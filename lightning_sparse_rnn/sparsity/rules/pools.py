"""Pools: sets of positions, across tensors, within which weights compete."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.gates import GateLayout

__all__ = ["Pool", "Scope", "each_gate", "each_layer", "each_tensor", "whole_model"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """Positions whose weights compete with each other.

    Attributes:
        key: names the pool among its model's.
        ranges: for each tensor that has positions in it, by name, from which position of the flattened tensor to
            before which.
    """

    key: str
    ranges: Mapping[str, tuple[int, int]]

    @property
    def sizes(self) -> list[int]:
        """The number of positions in each tensor."""
        return [stop - start for start, stop in self.ranges.values()]

    @property
    def size(self) -> int:
        """The number of positions."""
        return sum(self.sizes)

    def parts(self, flat: Mapping[str, Tensor]) -> list[Tensor]:
        """Return views of the pool's positions, one of each flattened tensor."""
        return [flat[name][start:stop] for name, (start, stop) in self.ranges.items()]

    def read(self, flat: Mapping[str, Tensor]) -> Tensor:
        """Return the pool's values as one tensor on the device of the first; of one tensor alone, as a view."""
        first, *others = self.parts(flat)
        return torch.cat([first, *(part.to(first.device) for part in others)]) if others else first

    def write(self, values: Tensor, flat: Mapping[str, Tensor]) -> None:
        """Put values back to where :meth:`read` took them from."""
        for part, new in zip(self.parts(flat), values.split(self.sizes), strict=True):
            part.copy_(new)


#: From the tensors' shapes and gates by name to the pools that they form.
Scope = Callable[[Mapping[str, Shape], Mapping[str, GateLayout]], list[Pool]]


def each_gate(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool for each gate, and one for each tensor without gates."""
    return [
        Pool(f"{name}/{gate}", {name: (start, stop)})
        for name, shape in shapes.items()
        for gate, start, stop in layouts[name].spans(shape)
    ]


def each_tensor(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool for each tensor."""
    return [Pool(name, {name: (0, math.prod(shape))}) for name, shape in shapes.items()]


def each_layer(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool for the input and hidden matrices of each recurrent layer, and one for every other tensor."""
    layers: dict[str, dict[str, tuple[int, int]]] = {}
    for name, shape in shapes.items():
        layers.setdefault(layouts[name].layer, {})[name] = (0, math.prod(shape))
    return [Pool(layer, ranges) for layer, ranges in layers.items()]


def whole_model(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool."""
    return [Pool("model", {name: (0, math.prod(shape)) for name, shape in shapes.items()})]
