"""One topology update, on flattened tensors: what goes and what comes back."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.gates import GateLayout
from lightning_sparse_rnn.sparsity.numerics.apportion import apportion
from lightning_sparse_rnn.sparsity.numerics.compaction import count_true
from lightning_sparse_rnn.sparsity.numerics.sampling import generator_for
from lightning_sparse_rnn.sparsity.rules.method import Rules
from lightning_sparse_rnn.sparsity.rules.pools import Pool, gather, scatter
from lightning_sparse_rnn.sparsity.rules.positions import Positions
from lightning_sparse_rnn.sparsity.rules.redistribution import Claim

__all__ = ["Mover"]

Flat = dict[str, Tensor]


class Mover:
    """Applies rules to the live weights of given tensors.

    Args:
        rules: of pruning, growth and redistribution.
        shapes, layouts: of the tensors, by name.
        seed: of the random choices.
    """

    def __init__(
        self, rules: Rules, shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, GateLayout], seed: int
    ) -> None:
        self.rules = rules
        self.memory: dict[str, dict[str, float]] = {}
        self._shapes, self._layouts = shapes, layouts
        self._seed = seed

    def move(
        self, live: Flat, quantities: Mapping[str, Flat], number: int, rate: float, total: int | None
    ) -> tuple[Flat, Flat]:
        """Prune and regrow in ``live``, in place, and return masks of what was pruned and what was regrown.

        Args:
            live: boolean masks of the tensors that take part.
            quantities: ``weights`` and what the rules need, flattened.
            number: of the update.
            rate: share of the live weights to replace.
            total: how many weights are to be live afterwards; ``None``: as many as before.

        Raises:
            ValueError: a rule returned something else than the mask it was asked for. What rules remember is as it
                was, whatever is raised.
        """
        remembered = copy.deepcopy(self.memory)
        try:
            return self._move(live, quantities, number, rate, total)
        except BaseException:
            self.memory = remembered
            raise

    def _move(
        self, live: Flat, quantities: Mapping[str, Flat], number: int, rate: float, total: int | None
    ) -> tuple[Flat, Flat]:
        shapes = {name: self._shapes[name] for name in live}
        prune_in = self.rules.redistribution.prune_in(shapes, self._layouts)
        grow_in = self.rules.redistribution.grow_in(shapes, self._layouts)
        before = _counts(prune_in, live)
        wanted = before if total is None else apportion(total, before, before)
        shared_out = self.rules.redistribution.share is not None
        lived = {name: flat.clone() for name, flat in live.items()} if shared_out else live

        pruned = {name: torch.zeros_like(flat) for name, flat in live.items()}
        for pool, n, after in zip(prune_in, before, wanted, strict=True):
            if n == 0 or (n == after == pool.size and not shared_out):
                continue  # where all positions are live, and are to be, nothing can move
            count = n - after + (0 if self.rules.grow is None else _share(rate, after))
            if count or self.rules.chooses_own_count:
                here = gather(pool, live)
                positions = self._positions(pool, here, quantities, number, "prune/")
                chosen = self.rules.prune(positions, count)
                _check("pruning", chosen, len(positions), None if self.rules.chooses_own_count else count)
                gone = positions.spread(chosen)
                scatter(pool, gone, pruned)
                scatter(pool, here ^ gone, live)

        regrown = {name: torch.zeros_like(flat) for name, flat in live.items()}
        for pool, count in zip(grow_in, self._quotas(grow_in, live, lived, quantities, number, wanted), strict=True):
            if count:
                assert self.rules.grow is not None
                here = gather(pool, live)
                positions = self._positions(pool, here.logical_not(), quantities, number)
                chosen = self.rules.grow(positions, count)
                _check("growth", chosen, len(positions), count)
                back = positions.spread(chosen)
                scatter(pool, back, regrown)
                scatter(pool, here ^ back, live)
        return pruned, regrown

    def _quotas(
        self,
        grow_in: Sequence[Pool],
        live: Flat,
        lived: Flat,
        quantities: Mapping[str, Flat],
        number: int,
        wanted: Sequence[int],
    ) -> Sequence[int]:
        """Return how many weights each of the pools to grow in gets, of ``lived`` before and ``live`` after pruning."""
        kept = _counts(grow_in, live)
        if self.rules.redistribution.share is None:
            return [after - left for after, left in zip(wanted, kept, strict=True)]
        claims = [
            Claim(self._positions(pool, gather(pool, lived), quantities, number), left)
            for pool, left in zip(grow_in, kept, strict=True)
        ]
        shares = list(self.rules.redistribution.share(claims))
        if len(shares) != len(claims) or not all(0 <= share < math.inf for share in shares):
            raise ValueError(
                f"Expected a redistribution to return {len(claims)} finite numbers of at least 0, one a tensor, got "
                f"{shares}."
            )
        free = [pool.size - left for pool, left in zip(grow_in, kept, strict=True)]
        return apportion(sum(wanted) - sum(kept), shares, free)

    def _positions(
        self, pool: Pool, where: Tensor, quantities: Mapping[str, Flat], number: int, purpose: str = ""
    ) -> Positions:
        generator = generator_for(self._seed, number, purpose + pool.key, where.device)
        return Positions(pool, where, quantities, generator, self.memory.setdefault(pool.key, {}))


def _check(option: str, chosen: Any, size: int, count: int | None) -> None:
    """Raise a ``ValueError`` if a rule has returned anything else than a mask with ``count`` entries true."""
    if not isinstance(chosen, Tensor) or chosen.dtype != torch.bool or chosen.shape != (size,):
        got = f"{chosen.dtype} {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else repr(chosen)
        raise ValueError(f"Expected a {option} rule to return a boolean tensor of shape ({size},), got {got}.")
    marked = count_true(chosen)
    if count is not None and marked != count:
        raise ValueError(f"Expected a {option} rule to mark exactly {count} of {size} positions, got {marked}.")


def _counts(pools: Sequence[Pool], flat: Flat) -> list[int]:
    return [sum(count_true(flat[s.name][s.start : s.stop]) for s in pool.segments) for pool in pools]


def _share(rate: float, n: int) -> int:
    """``⌈rate · n⌉``, where a product a rounding error above an integer counts as that integer."""
    return min(n, math.ceil(round(rate * n, 6)))
