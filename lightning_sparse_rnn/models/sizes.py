"""Dense networks as small as sparse ones are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_sparse_rnn.utilities.making import make

__all__ = ["shrink"]

_BISECTIONS = 40


def shrink(network: Mapping[str, Any], vocab_size: int, sparsity: float) -> dict[str, Any]:
    """Return ``network`` with all its sizes scaled by one number, the largest that makes it small enough.

    Small enough is a dense network with no more weights, in tensors of two or more dimensions, than the given one has
    live at ``sparsity``. Sizes are rounded down; where the network has chunks, to whole chunks.

    Args:
        network: its ``_target_`` and arguments, all but ``vocab_size``. What ends in ``_size`` is scaled.
        vocab_size: number of distinct tokens.
        sparsity: in [0, 1).

    Raises:
        ValueError: the network of the smallest sizes has too many weights.
    """
    wanted = round((1.0 - sparsity) * _weights(network, vocab_size))
    if _weights(_scaled(network, 0.0), vocab_size) > wanted:
        raise ValueError(
            f"No dense network of this kind has as few as {wanted} weights with a vocabulary of {vocab_size}. Lower "
            "the sparsity."
        )
    fits, too_large = 0.0, 1.0 + 1e-9
    for _ in range(_BISECTIONS):
        middle = (fits + too_large) / 2
        if _weights(_scaled(network, middle), vocab_size) <= wanted:
            fits = middle
        else:
            too_large = middle
    return _scaled(network, fits)


def _scaled(network: Mapping[str, Any], scale: float) -> dict[str, Any]:
    unit = network.get("chunk_size", 1)
    sizes = {name: size for name, size in network.items() if name.endswith("_size") and name != "chunk_size" and size}
    return {**network, **{name: max(1, int(scale * size / unit)) * unit for name, size in sizes.items()}}


def _weights(network: Mapping[str, Any], vocab_size: int) -> int:
    with torch.device("meta"):
        built = make(network, vocab_size=vocab_size)
    return sum(parameter.numel() for parameter in built.parameters() if parameter.dim() >= 2)
