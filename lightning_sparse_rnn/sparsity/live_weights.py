"""How many weights of a module are live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from lightning_sparse_rnn.sparsity.selection import sparsifiable_parameters

__all__ = ["LiveWeights", "live_weights"]


class LiveWeights(NamedTuple):
    """A number of live weights, and how many there is room for.

    >>> live = LiveWeights(33, 100)
    >>> print(live)
    33 of 100 weights live (33.0%)
    >>> live.density
    0.33
    """

    live: int
    total: int

    @property
    def density(self) -> float:
        """Share of weights that are live, in [0, 1]."""
        return self.live / self.total

    @property
    def sparsity(self) -> float:
        """Share of weights that are not, in [0, 1]."""
        return 1.0 - self.density

    def __str__(self) -> str:
        return f"{self.live:,} of {self.total:,} weights live ({self.density:.1%})"


def live_weights(
    module: nn.Module, include: str | Sequence[str] | None = None, exclude: str | Sequence[str] | None = None
) -> LiveWeights:
    """Count the weights of any module that are not zero, among the parameters that can be sparse.

    That is a trained module by itself, wherever its weights come from. While a callback or a ``SparseTopology`` trains
    it, ask ``topology.live_weights`` and ``topology.sparsity``: a live weight that was just regrown is zero as well.

    Args:
        module: with the weights.
        include, exclude: shell patterns over names of parameters, as of
            :class:`~lightning_sparse_rnn.sparsity.TopologyOptions`.

    >>> layer = nn.Linear(100, 30)
    >>> with torch.no_grad():
    ...     _ = layer.weight[:10].zero_()
    >>> print(live_weights(layer))
    2,000 of 3,000 weights live (66.7%)

    Raises:
        ValueError: nothing in ``module`` can be sparse, or a pattern matches none of it.
    """
    parameters = sparsifiable_parameters(module, include, exclude).values()
    live = sum(int(torch.count_nonzero(parameter.detach())) for parameter in parameters)
    return LiveWeights(live, sum(parameter.numel() for parameter in parameters))
