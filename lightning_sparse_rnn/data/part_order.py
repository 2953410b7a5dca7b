"""In which order an epoch reads the parts of a text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_sparse_rnn.utilities.checks import check_whole

__all__ = ["PartOrder"]

# Keeps these draws apart from those of sequence lengths, which have seed and epoch alone.
_DRAW_OF_PARTS = 1


@dataclass(frozen=True)
class PartOrder:
    """A text cut into contiguous parts, which every epoch reads in an order of its own.

    The parts are as equal as whole tokens allow, and may begin in the middle of a sentence. The order is drawn from a
    generator made of (`seed`, epoch): nothing global is consumed, all processes draw the same, and an epoch taken up in
    its middle goes on as it would have.

    Args:
        parts: how many, at least 2.
        seed: seed of the orders, at least 0.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.data import PartOrder
        >>> order = PartOrder(20, seed=1)
        >>> order.epoch(0) == order.epoch(1)
        False
        >>> read = order.read(torch.arange(1000), epoch=0)
        >>> sorted(read.tolist()) == list(range(1000))
        True
    """

    parts: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(2, shuffle_parts=self.parts)
        check_whole(0, seed=self.seed)

    def epoch(self, index: int) -> list[int]:
        """The order of epoch `index`: the numbers of the parts, counted from 0."""
        return np.random.default_rng((self.seed, index, _DRAW_OF_PARTS)).permutation(self.parts).tolist()

    def read(self, ids: Tensor, epoch: int) -> Tensor:
        """The text `ids`, 1-D, as epoch `epoch` reads it: a copy."""
        parts = ids.tensor_split(self.parts)
        return torch.cat([parts[number] for number in self.epoch(epoch)])
