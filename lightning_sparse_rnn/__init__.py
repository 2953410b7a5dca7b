"""Selfish Sparse RNN Training for PyTorch Lightning (Liu et al., ICML 2021)."""

from lightning_sparse_rnn.averaging import NonMonotonicAveraging
from lightning_sparse_rnn.callback import SelfishSparseCallback
from lightning_sparse_rnn.optim import SNTASGD
from lightning_sparse_rnn.sparsity import SparseTopology

__all__ = ["SNTASGD", "NonMonotonicAveraging", "SelfishSparseCallback", "SparseTopology"]

__version__ = "0.1.0"
