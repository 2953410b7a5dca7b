"""How far live weights may move: where they compete when pruned, and where as many come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightning_sparse_rnn.sparsity.gates import GateLayout
from lightning_sparse_rnn.sparsity.rules.marks import needs
from lightning_sparse_rnn.sparsity.rules.pools import Pool, Segment
from lightning_sparse_rnn.sparsity.rules.positions import Positions
from lightning_sparse_rnn.utilities.lookup import find_rule

__all__ = [
    "REDISTRIBUTIONS",
    "Claim",
    "Redistribution",
    "ShareRule",
    "find_redistribution",
    "live_weights",
    "mean_momentum",
]

Shape = tuple[int, ...]
Scope = Callable[[Mapping[str, Shape], Mapping[str, GateLayout]], list[Pool]]


@dataclass(frozen=True)
class Claim:
    """What a tensor can base its share of the weights to regrow on.

    Attributes:
        live: its live positions before the update.
        kept: how many of them this update has left.
    """

    live: Positions
    kept: int


#: From the tensors' claims to numbers of at least 0, in proportion to which they share out the weights to regrow.
ShareRule = Callable[[Sequence[Claim]], Sequence[float]]


@dataclass(frozen=True)
class Redistribution:
    """Where weights compete.

    Attributes:
        prune_in: the pools in which the weights to prune are chosen.
        grow_in: the pools in which the weights to regrow are chosen.
        share: what each of ``grow_in`` gets of all weights to regrow: from their claims to numbers of at least 0, in
            proportion to which they get theirs. ``None``: each pool gets back what it lost, and the two scopes are one.
    """

    prune_in: Scope
    grow_in: Scope
    share: ShareRule | None = None

    def __call__(self, claims: Sequence[Claim]) -> Sequence[float]:
        """Return the shares, where there are any."""
        assert self.share is not None
        return self.share(claims)

    @property
    def needs(self) -> frozenset[str]:
        """What the shares are made from: see :func:`~lightning_sparse_rnn.sparsity.rules.marks.needs`."""
        needed: frozenset[str] = getattr(self.share, "needs", frozenset())
        return needed


def each_gate(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool a gate, and one a tensor without gates."""
    return [
        Pool(f"{name}/{gate}", (Segment(name, start, stop),))
        for name, shape in shapes.items()
        for gate, start, stop in layouts[name].spans(shape)
    ]


def each_tensor(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool a tensor."""
    return [Pool(name, (_whole(name, shape),)) for name, shape in shapes.items()]


def each_layer(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool for the input and hidden matrices of each recurrent layer, and one for every other tensor."""
    layers: dict[str, list[Segment]] = {}
    for name, shape in shapes.items():
        layers.setdefault(layouts[name].layer, []).append(_whole(name, shape))
    return [Pool(layer, tuple(segments)) for layer, segments in layers.items()]


def whole_model(shapes: Mapping[str, Shape], layouts: Mapping[str, GateLayout]) -> list[Pool]:
    """One pool."""
    return [Pool("model", tuple(_whole(name, shape) for name, shape in shapes.items()))]


def _whole(name: str, shape: Shape) -> Segment:
    return Segment(name, 0, math.prod(shape))


def live_weights(tensors: Sequence[Claim]) -> list[float]:
    """Regrow in proportion to the live weights that pruning has left (Mostafa & Wang 2019, algorithm 1)."""
    return [float(tensor.kept) for tensor in tensors]


@needs("momenta")
def mean_momentum(tensors: Sequence[Claim]) -> list[float]:
    """Regrow in proportion to the mean magnitude of live weights' momentum (Dettmers & Zettlemoyer 2019, sec. 4.2)."""
    return [float(tensor.live.momenta.abs_().mean()) if len(tensor.live) else 0.0 for tensor in tensors]


REDISTRIBUTIONS: dict[str, Redistribution] = {
    "none": Redistribution(each_gate, each_gate),
    "gates": Redistribution(each_tensor, each_tensor),
    "layer": Redistribution(each_layer, each_layer),
    "model": Redistribution(whole_model, whole_model),
    "live": Redistribution(whole_model, each_tensor, live_weights),
    "momentum": Redistribution(each_tensor, each_tensor, mean_momentum),
}


def find_redistribution(given: str | ShareRule | Redistribution) -> Redistribution:
    """Return the redistribution ``given`` by name, import path, or itself.

    A function is taken for a ``share``: every tensor prunes its part, and all that was pruned is shared out anew.

    Raises:
        ValueError: there is none of that name, or it cannot be imported.
    """
    found = find_rule("redistribution", given, REDISTRIBUTIONS)
    return found if isinstance(found, Redistribution) else Redistribution(each_tensor, each_tensor, found)
