"""The method on plain tensors: sparse topologies, their rules and schedules. Needs torch alone."""

from lightning_sparse_rnn.sparsity.gates import GateLayout, find_gates
from lightning_sparse_rnn.sparsity.selection import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.topology import SparseTopology, TopologyUpdate

__all__ = ["GateLayout", "SparseTopology", "TopologyUpdate", "find_gates", "sparsifiable_parameters"]
