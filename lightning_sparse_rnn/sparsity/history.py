"""What topology updates have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["TopologyUpdate"]


@dataclass(frozen=True)
class TopologyUpdate:
    """What one topology update did.

    Attributes:
        number: 1 for a topology's first update, 2 for its second, ...
        rate: share of each pool's live weights that was to be replaced, in [0, 1).
        pruned, regrown, live: per tensor, per gate, the number of weights pruned, regrown, and live afterwards.
        born: for each parameter, a boolean mask of what was regrown, those positions included that were pruned in the
            same update.

    >>> from torch import nn
    >>> from lightning_sparse_rnn.sparsity import SparseTopology
    >>> update = SparseTopology(nn.Linear(10, 10), 0.5).update(0.2)
    >>> update.number, update.pruned, update.regrown, update.replaced
    (1, {'weight': {'all': 10}}, {'weight': {'all': 10}}, 0.2)
    """

    number: int
    rate: float
    pruned: dict[str, dict[str, int]]
    regrown: dict[str, dict[str, int]]
    live: dict[str, dict[str, int]]
    born: dict[Tensor, Tensor]

    @property
    def replaced(self) -> float:
        """Share of all live weights that this update replaced, in [0, 1]."""
        return _total(self.regrown) / max(1, _total(self.live))


def _total(counts: Mapping[str, Mapping[str, int]]) -> int:
    return sum(count for gates in counts.values() for count in gates.values())
