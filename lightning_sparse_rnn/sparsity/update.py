"""One topology update, on flattened tensors: what is pruned, and what is regrown."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.gates import GateLayout
from lightning_sparse_rnn.sparsity.masks import Masks
from lightning_sparse_rnn.sparsity.numerics.apportion import apportion
from lightning_sparse_rnn.sparsity.numerics.compaction import count_true
from lightning_sparse_rnn.sparsity.numerics.sampling import generator_for
from lightning_sparse_rnn.sparsity.quantities import Quantities
from lightning_sparse_rnn.sparsity.rules.contract import Claim, PositionRule
from lightning_sparse_rnn.sparsity.rules.method import Rules
from lightning_sparse_rnn.sparsity.rules.pools import Pool
from lightning_sparse_rnn.sparsity.rules.positions import Positions

__all__ = ["Update", "live_at"]


@dataclass(frozen=True)
class Update:
    """What one update is made from.

    Attributes:
        rules: of pruning, growth and redistribution.
        shapes, layouts: of tensors by name.
        quantities: weights, and what else the rules need.
        rate: share of the live weights to replace.
        total: how many weights are to be live afterwards; ``None``: as many as before.
        number, seed: the random choices are made from these.
        memory: what rules remember, by pool; changed in place.
    """

    rules: Rules
    shapes: Mapping[str, tuple[int, ...]]
    layouts: Mapping[str, GateLayout]
    quantities: Quantities
    rate: float
    total: int | None
    number: int
    seed: int
    memory: dict[str, dict[str, float]]

    def apply(self, live: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Prune and regrow in flattened masks, in place, and return masks of what was pruned and what was regrown.

        Args:
            live: of the tensors that take part, by name.

        Raises:
            ValueError: a rule returned something else than it was asked for.
        """
        scopes = self.rules.redistribution
        shapes = {name: self.shapes[name] for name in live}
        prune_in, grow_in = scopes.prune_in(shapes, self.layouts), scopes.grow_in(shapes, self.layouts)
        before = _counts(prune_in, live)
        after = before if self.total is None else _fewer(self.total, before)
        # Copied only for shares, which are claimed by what was live before.
        lived = live if scopes.share is None else {name: flat.clone() for name, flat in live.items()}

        pruned = self._prune(prune_in, live, before, after)
        kept = _counts(grow_in, live)
        if scopes.share is None:
            counts: Sequence[int] = [wanted - left for wanted, left in zip(after, kept, strict=True)]
        else:
            counts = self._shared_out(grow_in, lived, kept, sum(after) - sum(kept))
        return pruned, self._regrow(grow_in, live, counts)

    def _prune(
        self, pools: Sequence[Pool], live: Mapping[str, Tensor], before: Sequence[int], after: Sequence[int]
    ) -> dict[str, Tensor]:
        """Prune what is too many in each pool, and the share that is to be replaced."""
        pruned = {name: torch.zeros_like(flat) for name, flat in live.items()}
        for pool, n, wanted in zip(pools, before, after, strict=True):
            stays_full = n == wanted == pool.size and self.rules.redistribution.share is None
            if n == 0 or stays_full:
                continue  # where all positions are live, and are to be, nothing can move
            count = n - wanted + (0 if self.rules.grow is None else _share(self.rate, wanted))
            if count or self.rules.chooses_own_count:
                exactly = None if self.rules.chooses_own_count else count
                here = pool.read(live)
                gone = self._choose("pruning", self.rules.prune, pool, here, count, exactly)
                pool.write(gone, pruned)
                pool.write(here ^ gone, live)
        return pruned

    def _regrow(self, pools: Sequence[Pool], live: Mapping[str, Tensor], counts: Sequence[int]) -> dict[str, Tensor]:
        """Regrow so many weights in each pool, those just pruned not excepted."""
        regrown = {name: torch.zeros_like(flat) for name, flat in live.items()}
        for pool, count in zip(pools, counts, strict=True):
            if count:
                assert self.rules.grow is not None
                here = pool.read(live)
                back = self._choose("growth", self.rules.grow, pool, ~here, count, count)
                pool.write(back, regrown)
                pool.write(here ^ back, live)
        return regrown

    def _shared_out(
        self, pools: Sequence[Pool], lived: Mapping[str, Tensor], kept: Sequence[int], total: int
    ) -> list[int]:
        """Return how many of ``total`` weights each pool regrows, by its claim to them."""
        claims = [Claim(self._positions(pool, pool.read(lived)), left) for pool, left in zip(pools, kept, strict=True)]
        assert self.rules.redistribution.share is not None
        shares = list(self.rules.redistribution.share(claims))
        if len(shares) != len(claims) or not all(0 <= share < math.inf for share in shares):
            raise ValueError(
                f"Expected a redistribution to return {len(claims)} finite numbers of at least 0, one a tensor, got "
                f"{shares}."
            )
        free = [pool.size - left for pool, left in zip(pools, kept, strict=True)]
        return apportion(total, shares, free)

    def _choose(
        self, option: str, rule: PositionRule, pool: Pool, where: Tensor, count: int, exactly: int | None
    ) -> Tensor:
        """Return what a rule chooses of the pool's positions ``where``, as a mask over all of the pool's."""
        positions = self._positions(pool, where, "prune/" if option == "pruning" else "")
        chosen = rule(positions, count)
        _check(option, chosen, len(positions), exactly)
        return positions.spread(chosen)

    def _positions(self, pool: Pool, where: Tensor, purpose: str = "") -> Positions:
        generator = generator_for(self.seed, self.number, purpose + pool.key, where.device)
        return Positions(pool, where, self.quantities, generator, self.memory.setdefault(pool.key, {}))


def live_at(density: float, masks: Masks, moving: Collection[str], rules: Rules) -> int | None:
    """Return how many weights of the tensors that are ``moving`` are to be live for a density of all; ``None`` if none.

    Raises:
        ValueError: there is no such number, or the rules cannot go there.
    """
    live, total = masks.live, round(density * masks.total)
    if not 0 < total <= live:
        raise ValueError(
            f"Expected a `density` above 0 and of at most {live / masks.total:.6g}, the present one, got {density}: an "
            "update only lowers it."
        )
    if rules.chooses_own_count:
        raise ValueError("This pruning rule chooses how many weights go, and cannot follow a `density`.")
    if not moving:
        return None
    kept = sum(sum(gates.values()) for name, gates in masks.live_per_gate().items() if name not in moving)
    if kept >= total:
        raise ValueError(
            f"Expected a `density` above {kept / masks.total:.6g}, that of the live weights of parameters that are not "
            f"trained and therefore keep them, got {density}."
        )
    return total - kept


def _check(option: str, chosen: Any, size: int, count: int | None) -> None:
    """Raise a ``ValueError`` if a rule has returned anything else than a mask with ``count`` entries true."""
    if not isinstance(chosen, Tensor) or chosen.dtype != torch.bool or chosen.shape != (size,):
        got = f"{chosen.dtype} {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else repr(chosen)
        raise ValueError(f"Expected a {option} rule to return a boolean tensor of shape ({size},), got {got}.")
    marked = count_true(chosen)
    if count is not None and marked != count:
        raise ValueError(f"Expected a {option} rule to mark exactly {count} of {size} positions, got {marked}.")


def _counts(pools: Sequence[Pool], flat: Mapping[str, Tensor]) -> list[int]:
    return [sum(count_true(part) for part in pool.parts(flat)) for pool in pools]


def _fewer(total: int, before: Sequence[int]) -> list[int]:
    """Share ``total`` out in proportion to ``before``; where there are enough, none that has some is left with none.

    A pool without live weights would stay without them, and a layer without live weights passes nothing on.
    """
    last: set[int] = set()  # those that keep a single one, which is more than their part
    while True:
        rest = [0 if i in last else n for i, n in enumerate(before)]
        after = [1 if i in last else n for i, n in enumerate(apportion(total - len(last), rest, rest))]
        starved = {i for i, (n, left) in enumerate(zip(before, after, strict=True)) if n and not left}
        if not starved or total < sum(n > 0 for n in before):
            return after
        last |= starved


def _share(rate: float, n: int) -> int:
    """``⌈rate · n⌉``, where a product a rounding error above an integer counts as that integer."""
    return min(n, math.ceil(round(rate * n, 6)))
