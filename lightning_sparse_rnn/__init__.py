"""Selfish Sparse RNN Training for PyTorch Lightning (Liu et al., ICML 2021).

The names below are imported when they are first asked for, so that ``lightning_sparse_rnn.sparsity``, ``optim`` and
``load_sparse`` need torch alone, and Lightning is not loaded where it is not used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sparse_rnn.callbacks.averaging import NonMonotonicAveraging
    from lightning_sparse_rnn.callbacks.checkpoint import SparseModelCheckpoint
    from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
    from lightning_sparse_rnn.optim.sntasgd import SNTASGD
    from lightning_sparse_rnn.sparsity.live_weights import live_weights
    from lightning_sparse_rnn.sparsity.sparse_files import load_sparse, save_sparse
    from lightning_sparse_rnn.sparsity.topology import SparseTopology

__all__ = [
    "SNTASGD",
    "NonMonotonicAveraging",
    "SelfishSparseCallback",
    "SparseModelCheckpoint",
    "SparseTopology",
    "live_weights",
    "load_sparse",
    "save_sparse",
]

__version__ = "0.1.0"

_HOMES = {
    "NonMonotonicAveraging": "callbacks.averaging",
    "SNTASGD": "optim.sntasgd",
    "SelfishSparseCallback": "callbacks.selfish_sparse",
    "SparseModelCheckpoint": "callbacks.checkpoint",
    "SparseTopology": "sparsity.topology",
    "live_weights": "sparsity.live_weights",
    "load_sparse": "sparsity.sparse_files",
    "save_sparse": "sparsity.sparse_files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
