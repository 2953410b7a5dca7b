"""Sparse models that run smaller and faster than dense ones on a CPU; needs torch alone."""

from lightning_sparse_rnn.inference.compression import compress
from lightning_sparse_rnn.inference.files import load_packed, save_packed

__all__ = ["compress", "load_packed", "save_packed"]
