"""Optimizers that know of masks, and how others are told of them. Needs torch alone."""

from lightning_sparse_rnn.optim.sntasgd import SNTASGD
from lightning_sparse_rnn.optim.trigger import NonMonotonicTrigger

__all__ = ["SNTASGD", "NonMonotonicTrigger"]
