"""Which inactive weights come back.

A rule takes a pool's ``n`` inactive :class:`Positions` and how many to regrow, and returns a boolean tensor of shape
``(n,)`` in which exactly that many entries are true. Whatever its gradient or its past, a regrown weight starts at
zero.
"""

from __future__ import annotations

from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.compaction import count_true, expand
from lightning_sparse_rnn.sparsity.numerics.ranking import largest
from lightning_sparse_rnn.sparsity.numerics.sampling import choose
from lightning_sparse_rnn.sparsity.rules.contract import PositionRule, needs
from lightning_sparse_rnn.sparsity.rules.positions import Positions

__all__ = ["GROWTH", "gradient", "momentum", "random", "random_elsewhere"]


def random(free: Positions, count: int) -> Tensor:
    """Regrow uniformly at random (the paper's choice): every set of ``count`` positions is equally likely."""
    return choose(len(free), count, free.generator)


def random_elsewhere(free: Positions, count: int) -> Tensor:
    """Regrow uniformly at random where this update has not pruned.

    At high rates :func:`random` regrows many weights exactly where they were just pruned, which resets them and
    explores nothing. This rule uses those positions only when no others are left. A weight that was zero when it was
    pruned counts as one that was inactive before.
    """
    rested = free.weights == 0
    room = count_true(rested)
    chosen = expand(choose(room, min(count, room), free.generator), rested)
    if count > room:
        pruned = rested.logical_not_()
        chosen |= expand(choose(len(free) - room, count - room, free.generator), pruned)
    return chosen


@needs("gradients")
def gradient(free: Positions, count: int) -> Tensor:
    """Regrow where the dense gradient is largest in magnitude (RigL, Evci et al. 2020); of equals the earlier."""
    return largest(free.gradients.abs_(), count)


@needs("momenta")
def momentum(free: Positions, count: int) -> Tensor:
    """Regrow where the mean gradient is largest in magnitude (SNFS, Dettmers & Zettlemoyer 2019); of equals the
    earlier."""
    return largest(free.momenta.abs_(), count)


GROWTH: dict[str, PositionRule] = {
    "random": random,
    "random_elsewhere": random_elsewhere,
    "gradient": gradient,
    "momentum": momentum,
}
