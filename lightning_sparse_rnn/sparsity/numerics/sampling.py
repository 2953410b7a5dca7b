"""Random choices that need no saved state: every draw has a generator of its own, made from what it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits
from lightning_sparse_rnn.sparsity.numerics.compaction import count_true

__all__ = ["choose", "first_draw", "generator_for"]


def generator_for(seed: int, number: int, key: str, device: torch.device) -> torch.Generator:
    """Return the generator of draw ``number`` of tensor ``key``: equal on every rank and after every resume."""
    digest = hashlib.blake2b(f"{seed}/{number}/{key}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def first_draw(masks: Iterable[Tensor]) -> int:
    """Return from which number on draws are made for a topology that was found and not drawn.

    It is another one for every topology: with the draws of the run that it comes from, an update would regrow what
    that run did, which is live already.
    """
    digest = hashlib.blake2b(digest_size=8)
    for mask in masks:
        digest.update(pack_bits(mask).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def choose(total: int, count: int, generator: torch.Generator) -> Tensor:
    """Choose exactly ``count`` of ``total`` positions, every set of that size equally likely.

    Returns:
        Boolean tensor of shape ``(total,)`` with ``count`` entries true, on the generator's device.
    """
    # Positions are drawn with replacement until enough are distinct. Every batch is just as large as what is still
    # missing, so that none is ever dropped and no position is favoured. Drawing the smaller side bounds the batches.
    smaller = min(count, total - count)
    chosen = torch.zeros(total, dtype=torch.bool, device=generator.device)
    missing = smaller
    while missing:
        drawn = torch.randint(total, (missing,), generator=generator, device=generator.device)
        chosen.index_fill_(0, drawn, True)
        missing = smaller - count_true(chosen)
    return chosen if smaller == count else chosen.logical_not_()
