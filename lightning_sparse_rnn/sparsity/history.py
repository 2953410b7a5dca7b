"""What topology updates have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from lightning_sparse_rnn.sparsity.topology import SparseTopology

__all__ = ["TopologyUpdate", "record"]


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


def record(topology: SparseTopology, epoch: int, step: int, update: TopologyUpdate | None = None) -> dict[str, Any]:
    """Return what is kept of an update, or of the topology that a run begins with: plain values.

    Args:
        topology: as it is afterwards.
        epoch: the one that the update comes before.
        step: optimizer steps so far.
        update: ``None`` for the beginning.
    """
    nothing = {name: dict.fromkeys(gates, 0) for name, gates in topology.gate_sizes.items()}
    return {
        "update": 0 if update is None else update.number,
        "epoch": epoch,
        "step": step,
        "rate": 0.0 if update is None else update.rate,
        "live": topology.live_per_gate() if update is None else update.live,
        "explored": topology.explored_per_gate(),
        "pruned": nothing if update is None else update.pruned,
        "regrown": nothing if update is None else update.regrown,
    }
