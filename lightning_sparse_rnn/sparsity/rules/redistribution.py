"""How far live weights may move: where they compete when pruned, and where as many come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_sparse_rnn.sparsity.rules.contract import Claim, ShareRule, needed_by, needs
from lightning_sparse_rnn.sparsity.rules.pools import Scope, each_gate, each_layer, each_tensor, whole_model
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

    @property
    def needs(self) -> frozenset[str]:
        """What the shares are made from: see :func:`~lightning_sparse_rnn.sparsity.rules.contract.needs`."""
        return needed_by(self.share)


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
    if isinstance(given, Redistribution):
        return given
    found = find_rule("redistribution", given, REDISTRIBUTIONS)
    return found if isinstance(found, Redistribution) else Redistribution(each_tensor, each_tensor, found)
