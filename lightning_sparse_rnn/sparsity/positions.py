"""What a pruning or growth rule gets to see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.pools import Pool

__all__ = ["Positions"]


class Positions:
    """The positions a rule chooses from: the ``n = len(positions)`` live, or inactive, ones of a pool, in order.

    Every tensor here has shape ``(n,)`` and is a copy, made when it is asked for. Of inactive positions the weights
    are zero, but for those that were pruned a moment ago, which still have their value.

    Attributes:
        generator: for what the rule draws at random: equal on every rank and after every resume.
        memory: numbers that the rule wants to find again at the next update, by name; saved in checkpoints.
    """

    def __init__(
        self,
        pool: Pool,
        where: Tensor,
        quantities: Mapping[str, Mapping[str, Tensor]],
        generator: torch.Generator,
        memory: dict[str, float],
    ) -> None:
        self.generator = generator
        self.memory = memory
        self._pool = pool
        self._where = where
        self._quantities = quantities
        self._size = int(torch.count_nonzero(where))

    def __len__(self) -> int:
        return self._size

    @property
    def weights(self) -> Tensor:
        """Their values."""
        return self._take("weights")

    @property
    def gradients(self) -> Tensor:
        """Their entries in the dense gradient. For rules marked ``@needs("gradients")``."""
        return self._take("gradients")

    @property
    def momenta(self) -> Tensor:
        """Their entries in the running mean of the dense gradients. For rules marked ``@needs("momenta")``."""
        return self._take("momenta")

    @property
    def signs(self) -> Tensor:
        """Whether the weight was born positive. For rules marked ``@needs("signs")``."""
        return self._take("signs")

    def _take(self, quantity: str) -> Tensor:
        if quantity not in self._quantities:
            raise LookupError(f"A rule that looks at {quantity} must say so: mark it with @needs({quantity!r}).")
        flat, parts, start = self._quantities[quantity], [], 0
        for segment in self._pool.segments:
            # Segment by segment: what is not chosen is never copied.
            stop = start + segment.stop - segment.start
            here = self._where[start:stop]
            part = _select(flat[segment.name][segment.start : segment.stop], here.to(flat[segment.name].device))
            parts.append(part.to(self._where.device))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def spread(self, chosen: Tensor) -> Tensor:
        """Return what was chosen of these positions, shape ``(n,)``, as a mask over all positions of the pool."""
        return torch.zeros_like(self._where).masked_scatter_(self._where, chosen)


def _select(values: Tensor, where: Tensor) -> Tensor:
    """``values[where]``, on a CPU by numpy, which takes a quarter of the time."""
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64, torch.bool):
        return torch.from_numpy(np.compress(where.numpy(), values.numpy()))
    return values[where]
