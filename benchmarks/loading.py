"""An epoch of batches, read and brought to the device, without a network."""

from __future__ import annotations

import torch

from benchmarks.floors import Floors
from benchmarks.setting import Setting
from benchmarks.turns import Figure, compare, take_turns
from lightning_sparse_rnn.data import ColumnBatches
from lightning_sparse_rnn.data.lengths import SequenceLengths

__all__ = ["measure"]

_BATCHES = 400


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Compare a text that lies on the device with one whose batches are moved there."""
    size = setting.size
    ids = torch.randint(size.vocabulary, (size.columns * (_BATCHES * size.steps + 1),))
    lengths = SequenceLengths(size.steps)
    there = ColumnBatches(ids, size.columns, lengths, device=setting.device)
    moved = ColumnBatches(ids, size.columns, lengths)

    def read(batches: ColumnBatches) -> None:
        for tokens, targets in batches.epoch(0):
            tokens.to(setting.device), targets.to(setting.device)

    sides = {"text on the device": lambda: read(there), "text in memory, batches moved": lambda: read(moved)}
    times = take_turns(sides, setting)
    return compare("loading of a batch", times, "text on the device", {}, each=len(there))
