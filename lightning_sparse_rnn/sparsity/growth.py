"""Which inactive weights come back.

A rule takes a pool's ``n`` inactive :class:`Positions` and how many to regrow, and returns a boolean tensor of shape
``(n,)`` in which exactly that many entries are true. Whatever its gradient or its past, a regrown weight starts at
zero.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_sparse_rnn.sparsity.positions import Positions
from lightning_sparse_rnn.sparsity.ranking import largest
from lightning_sparse_rnn.sparsity.rules import needs
from lightning_sparse_rnn.sparsity.sampling import choose

__all__ = ["GROWTH", "gradient", "momentum", "random"]


def random(free: Positions, count: int) -> Tensor:
    """Regrow uniformly at random (the paper's choice): every set of ``count`` positions is equally likely."""
    return choose(len(free), count, free.generator)


@needs("gradients")
def gradient(free: Positions, count: int) -> Tensor:
    """Regrow where the dense gradient is largest in magnitude (RigL, Evci et al. 2020); of equals the earlier."""
    return largest(free.gradients.abs_(), count)


@needs("momenta")
def momentum(free: Positions, count: int) -> Tensor:
    """Regrow where the mean gradient is largest in magnitude (SNFS, Dettmers & Zettlemoyer 2019); of equals the
    earlier."""
    return largest(free.momenta.abs_(), count)


GROWTH: dict[str, Callable[[Positions, int], Tensor]] = {
    "random": random,
    "gradient": gradient,
    "momentum": momentum,
}
