"""How far live weights may move: a pool is a set of positions that together keep their number of live weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lightning_sparse_rnn.sparsity.gates import GateLayout

__all__ = ["SCOPES", "Pool", "Segment"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """Positions ``start`` to ``stop`` of the flattened tensor ``name``."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Pool:
    """Segments that share one count of live weights. ``key`` names the pool among its model's."""

    key: str
    segments: tuple[Segment, ...]


def _by_gate(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    return [
        Pool(f"{name}/{gate}", (Segment(name, start, stop),))
        for name, shape in shapes.items()
        for gate, start, stop in layouts[name].spans(shape)
    ]


def _by_tensor(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    return [Pool(name, (_whole(name, shape),)) for name, shape in shapes.items()]


def _by_layer(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    layers: dict[str, list[Segment]] = {}
    for name, shape in shapes.items():
        layers.setdefault(layouts[name].layer, []).append(_whole(name, shape))
    return [Pool(layer, tuple(segments)) for layer, segments in layers.items()]


def _whole_model(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    return [Pool("model", tuple(_whole(name, shape) for name, shape in shapes.items()))]


def _whole(name: str, shape: Shape) -> Segment:
    return Segment(name, 0, math.prod(shape))


#: What keeps its number of live weights: each gate, each matrix (the paper), each recurrent layer, or the model.
SCOPES: dict[str, Callable[[Mapping[str, Shape], Mapping[str, GateLayout]], list[Pool]]] = {
    "none": _by_gate,
    "gates": _by_tensor,
    "layer": _by_layer,
    "model": _whole_model,
}
