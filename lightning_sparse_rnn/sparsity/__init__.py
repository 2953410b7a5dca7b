"""The method on plain tensors: sparse topologies, their rules and schedules. Needs torch alone."""

from lightning_sparse_rnn.sparsity.gates import GateLayout, find_gates
from lightning_sparse_rnn.sparsity.history import TopologyUpdate
from lightning_sparse_rnn.sparsity.rules.marks import chooses_own_count, needs
from lightning_sparse_rnn.sparsity.rules.positions import PositionRule, Positions
from lightning_sparse_rnn.sparsity.selection import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.topology import SparseTopology

__all__ = [
    "GateLayout",
    "PositionRule",
    "Positions",
    "SparseTopology",
    "TopologyUpdate",
    "chooses_own_count",
    "find_gates",
    "needs",
    "sparsifiable_parameters",
]
