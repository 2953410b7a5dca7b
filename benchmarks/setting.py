"""What a benchmark is measured with: the sizes of the network, the device, and how often."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

__all__ = ["RECIPE", "SMALL", "Setting", "Size"]


@dataclass(frozen=True)
class Size:
    """A stacked LSTM language model and its batches."""

    vocabulary: int
    width: int
    layers: int
    columns: int
    steps: int

    @property
    def weights(self) -> int:
        """All weights, biases included."""
        return self.sparse_weights + self.layers * 8 * self.width + self.vocabulary

    @property
    def sparse_weights(self) -> int:
        """Those of matrices."""
        return self.multiplied_weights + self.vocabulary * self.width

    @property
    def multiplied_weights(self) -> int:
        """Those that a token is multiplied by: all matrices but the embedding, of which it reads a row."""
        return self.layers * 8 * self.width**2 + self.vocabulary * self.width

    @property
    def tokens(self) -> int:
        """Tokens of a batch."""
        return self.columns * self.steps


#: The paper's stacked LSTM on the Penn Treebank.
RECIPE = Size(vocabulary=10_000, width=1500, layers=2, columns=20, steps=35)
#: To try the benchmarks in seconds.
SMALL = Size(vocabulary=300, width=32, layers=2, columns=4, steps=7)


@dataclass(frozen=True)
class Setting:
    """Where, how large and how often.

    Args:
        size: of the network.
        device: ``cpu`` or a GPU.
        repeats: measurements of each figure, of which the median counts.
        batches: training steps of one measurement; on a GPU several, so that the device does not wait for the clock.
    """

    size: Size
    device: torch.device
    repeats: int
    batches: int = 1

    def now(self) -> float:
        """Seconds: processor time on a CPU, which other processes disturb least; on a GPU, when all work is done."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()
