"""The method on plain tensors: sparse topologies, their rules and schedules. Needs torch alone."""

from lightning_sparse_rnn.sparsity.gates import GateLayout, find_gates
from lightning_sparse_rnn.sparsity.history import TopologyUpdate
from lightning_sparse_rnn.sparsity.live_weights import LiveWeights, live_weights
from lightning_sparse_rnn.sparsity.numerics.compaction import compact, expand
from lightning_sparse_rnn.sparsity.numerics.ranking import largest, smallest
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.quantities import Quantities
from lightning_sparse_rnn.sparsity.rules.contract import PositionRule, chooses_own_count, needs
from lightning_sparse_rnn.sparsity.rules.positions import Positions
from lightning_sparse_rnn.sparsity.rules.schedules import PruneRate, SparsityRamp
from lightning_sparse_rnn.sparsity.selection import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.topology import SparseTopology

__all__ = [
    "GateLayout",
    "LiveWeights",
    "PositionRule",
    "Positions",
    "PruneRate",
    "Quantities",
    "SparseTopology",
    "SparsityRamp",
    "TopologyOptions",
    "TopologyUpdate",
    "chooses_own_count",
    "compact",
    "expand",
    "find_gates",
    "largest",
    "live_weights",
    "needs",
    "smallest",
    "sparsifiable_parameters",
]
