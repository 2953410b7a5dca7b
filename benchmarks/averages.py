"""Showing the averages in the parameters before a validation, and putting the training weights back after it."""

from __future__ import annotations

import statistics

from benchmarks.floors import Floors
from benchmarks.models import SPARSITY, averaging
from benchmarks.optimizer_step import with_gradients
from benchmarks.setting import Setting
from benchmarks.turns import Figure
from lightning_sparse_rnn.sparsity import SparseTopology

__all__ = ["measure"]


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Measure both, with steps to fold into the averages."""
    module = with_gradients(setting)
    optimizer = averaging(list(module.parameters()), SparseTopology(module, SPARSITY))
    shown, put_back = [], []
    for turn in range(setting.repeats + 1):
        optimizer.step()
        begin = setting.now()
        optimizer.show_averaged_weights()
        between = setting.now()
        optimizer.show_training_weights()
        if turn:
            shown.append(between - begin)
            put_back.append(setting.now() - between)
    weights = setting.size.weights
    there = floors.moving(weights, 7, "mean, sum and birth read, mean written; the weights read, kept and replaced")
    back = floors.moving(weights, 3, "the weights read and written, the sum set to zero")
    return [
        Figure("averages", "shown", statistics.median(shown), None, None, *there),
        Figure("averages", "training weights put back", statistics.median(put_back), None, None, *back),
    ]
