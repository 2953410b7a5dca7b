"""Dropout whose masks hold for a whole sequence (Gal & Ghahramani 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["embed", "locked_dropout", "locked_mask"]


def locked_mask(like: Tensor, p: float) -> Tensor:
    """One mask for every time step of `like` (time, columns, features): 0 or 1 / (1 − p), (columns, features)."""
    return like.new_empty(like.shape[1:]).bernoulli_(1 - p).div_(1 - p)


def locked_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Drop features of `x` (time, columns, features) with probability `p`, the same at every time step."""
    return x * locked_mask(x, p) if training and p > 0 else x


def embed(embedding: nn.Embedding, tokens: Tensor, p: float, training: bool) -> Tensor:
    """Embed `tokens`, dropping each word of the vocabulary with probability `p`, wherever it stands in the batch."""
    embedded = embedding(tokens)
    if not training or p == 0:
        return embedded
    words = F.dropout(embedding.weight.new_ones(embedding.num_embeddings), p)
    return embedded * words[tokens].unsqueeze(-1)
