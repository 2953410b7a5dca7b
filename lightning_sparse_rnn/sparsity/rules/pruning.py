"""Which live weights go.

A rule takes a pool's ``n`` live :class:`Positions` and how many to prune, and returns a boolean tensor of shape
``(n,)`` in which exactly that many entries are true.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.compaction import compact, count_true, expand
from lightning_sparse_rnn.sparsity.numerics.ranking import smallest
from lightning_sparse_rnn.sparsity.rules.contract import PositionRule, chooses_own_count, needs
from lightning_sparse_rnn.sparsity.rules.positions import Positions

__all__ = ["PRUNING", "magnitude", "saliency", "sign_flip", "signed_magnitude", "threshold"]

_TOLERANCE = 0.1
_THRESHOLD = "threshold"


def magnitude(live: Positions, count: int) -> Tensor:
    """Prune the ``count`` weights of smallest magnitude; of equal magnitudes the earlier position goes first."""
    return smallest(live.weights.abs_(), count)


def signed_magnitude(live: Positions, count: int) -> Tensor:
    """Prune half from the smallest positive weights, half from the negative ones closest to zero (SET, Mocanu 2018).

    Of an odd count the positive side loses one more; what one side is short of the other gives. A zero counts as
    positive.
    """
    weights = live.weights
    positive = weights >= 0
    negative = ~positive
    total = count_true(positive)
    from_positive = min(max((count + 1) // 2, count - (len(live) - total)), total)
    gone = expand(smallest(compact(weights, positive), from_positive), positive)
    return gone.logical_or_(expand(smallest(compact(weights, negative).neg_(), count - from_positive), negative))


@chooses_own_count
@needs("signs")
def sign_flip(live: Positions, count: int) -> Tensor:
    """Prune every weight that has crossed zero since it was born, however many (DeepR, Bellec et al. 2018).

    A weight that is zero has not crossed. The newborn are given a sign at random.
    """
    weights = live.weights
    return (weights > 0).logical_xor_(live.signs).logical_and_(weights != 0)


@chooses_own_count
def threshold(live: Positions, count: int) -> Tensor:
    """Prune what is below an adaptive threshold (DSR, Mostafa & Wang 2019, algorithm 1).

    The first call prunes the ``count`` smallest weights, and the largest of their magnitudes, or the smallest above
    zero if that is zero, becomes the threshold. Later calls prune every magnitude below it. If that is over 10 % more
    (fewer) than ``count``, the threshold is halved (doubled) for the next call. In the publication the first threshold
    is a setting, tuned by hand.
    """
    sizes = live.weights.abs_()
    if count == 0:
        return torch.zeros_like(sizes, dtype=torch.bool)
    if _THRESHOLD not in live.memory:
        gone = smallest(sizes, count)
        positive = sizes[sizes > 0]
        if len(positive):  # doubling would never get a threshold of zero anywhere
            live.memory[_THRESHOLD] = float(torch.maximum(sizes[gone].max(), positive.min()))
        return gone
    gone = sizes < live.memory[_THRESHOLD]
    pruned = count_true(gone)
    if pruned > (1 + _TOLERANCE) * count:
        live.memory[_THRESHOLD] /= 2
    elif pruned < (1 - _TOLERANCE) * count:
        live.memory[_THRESHOLD] *= 2
    return gone


@needs("gradients")
def saliency(live: Positions, count: int) -> Tensor:
    """Prune those whose removal changes the loss least, by ``|w·g|`` (SNIP, Lee et al. 2019, eq. 6)."""
    return smallest(live.weights.mul_(live.gradients).abs_(), count)


PRUNING: dict[str, PositionRule] = {
    "magnitude": magnitude,
    "signed_magnitude": signed_magnitude,
    "sign_flip": sign_flip,
    "threshold": threshold,
    "saliency": saliency,
}
