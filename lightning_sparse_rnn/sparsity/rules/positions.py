"""What a pruning or growth rule gets to see."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.compaction import compact, compact_into, count_true, expand
from lightning_sparse_rnn.sparsity.quantities import Quantities
from lightning_sparse_rnn.sparsity.rules.pools import Pool

__all__ = ["Positions"]


class Positions:
    """The positions a rule chooses from: the ``n = len(positions)`` live, or inactive, ones of a pool, in order.

    Every tensor here has shape ``(n,)`` and is a copy, made when it is asked for. The weights of
    inactive positions are zero, except those pruned earlier in the same update, which still have their old values.

    Attributes:
        generator: for what the rule draws at random: equal on every rank and after every resume.
        memory: numbers that the rule wants to find again at the next update, by name; saved in checkpoints.

    >>> def smallest_of_even(live: Positions, count: int) -> Tensor:
    ...     even = torch.arange(len(live)) % 2 == 0
    ...     order = torch.where(even, live.weights.abs(), torch.inf).argsort()
    ...     return torch.zeros(len(live), dtype=torch.bool).index_fill_(0, order[:count], True)
    >>> where, weights = torch.tensor([True, True, False, True]), {"w": torch.tensor([3.0, 1.0, 0.0, -2.0])}
    >>> live = Positions(Pool("w", {"w": (0, 4)}), where, Quantities(weights), torch.Generator(), memory={})
    >>> live.weights, smallest_of_even(live, 1)
    (tensor([ 3.,  1., -2.]), tensor([False, False,  True]))
    """

    def __init__(
        self,
        pool: Pool,
        where: Tensor,
        quantities: Quantities,
        generator: torch.Generator,
        memory: dict[str, float],
    ) -> None:
        self.generator = generator
        self.memory = memory
        self._pool = pool
        self._where = where
        self._quantities = quantities
        self._counts = [count_true(part) for part in where.split(pool.sizes)]

    def __len__(self) -> int:
        return sum(self._counts)

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

    @property
    def indices(self) -> dict[str, Tensor]:
        """By the name of each of the pool's tensors, which of its flattened positions these are: int64, ascending."""
        places = zip(self._pool.ranges.items(), self._where.split(self._pool.sizes), strict=True)
        return {name: here.nonzero().squeeze(1) + start for (name, (start, _)), here in places}

    def _take(self, quantity: str) -> Tensor:
        flat = getattr(self._quantities, quantity)
        if flat is None:
            raise LookupError(f"A rule that looks at {quantity} must say so: mark it with @needs({quantity!r}).")
        parts = self._pool.parts(flat)
        # Tensors of several dtypes in one pool come in one that holds them all, as `torch.cat` would give them.
        dtype = functools.reduce(torch.promote_types, {part.dtype for part in parts})
        taken = torch.empty(len(self), dtype=dtype, device=self._where.device)
        places = zip(parts, self._where.split(self._pool.sizes), taken.split(self._counts), strict=True)
        for values, here, place in places:
            # Tensor by tensor: what is not chosen is never copied.
            if values.dtype == dtype:
                compact_into(place, values, here)
            else:
                place.copy_(compact(values, here))
        return taken

    def spread(self, chosen: Tensor) -> Tensor:
        """Return what was chosen of these positions, shape ``(n,)``, as a mask over all positions of the pool."""
        return expand(chosen, self._where)
