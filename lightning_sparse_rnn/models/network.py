"""What every network of this package looks like to the language model that trains it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.models.kernels.linear import Linear
from lightning_sparse_rnn.models.kernels.rows import rows_at_a_time
from lightning_sparse_rnn.models.kernels.softmax_loss import counts, cross_entropy, softmax_loss
from lightning_sparse_rnn.models.kernels.state import State
from lightning_sparse_rnn.models.kernels.untouched import untouched
from lightning_sparse_rnn.utilities.checks import check_flags, check_whole

__all__ = ["Network", "Output"]


class Output(NamedTuple):
    """What a network computes from a batch of tokens.

    Attributes:
        hidden: the last layer's output after its dropout, (time, columns, features); what `Network.loss`
            and `Network.log_probs` read.
        raw: the same before its dropout.
        state: the network's memory after the last token, to be passed to the next call.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.models import GRU
        >>> network = GRU(vocab_size=50, embedding_size=16, hidden_size=16)
        >>> first = network(torch.randint(50, (10, 4)))
        >>> second = network(torch.randint(50, (10, 4)), state=first.state)  # the tokens that follow
    """

    hidden: Tensor
    raw: Tensor
    state: State


class Network(nn.Module, ABC):
    """A recurrent language network: tokens in, a distribution over the next token out.

    A subclass puts its layers between `embedding` and `decoder` and defines `forward`; one whose output is no plain
    softmax overrides `loss` and `log_probs` as well. The two are apart from `forward` so that the probabilities
    of a large vocabulary are only materialised where they are asked for.

    Embedding and decoder start uniform in ±0.1, the decoder's bias at 0.

    Args:
        vocab_size: number of distinct tokens.
        embedding_size: features of a token's embedding.
        decoder_size: features that the decoder reads.
        tied: share one weight between embedding and decoder.

    Raises:
        ValueError: if a size is not positive, or tied sizes differ.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_sparse_rnn.models import Network, Output
        >>> class ElmanNetwork(Network):
        ...     def __init__(self, vocab_size, hidden_size=16):
        ...         super().__init__(vocab_size, embedding_size=hidden_size, decoder_size=hidden_size, tied=True)
        ...         self.layer = nn.RNN(hidden_size, hidden_size)
        ...
        ...     def forward(self, tokens, state=None):
        ...         hidden, state = self.layer(self.embedding(tokens), state)
        ...         return Output(hidden, hidden, state)
        >>> ElmanNetwork(vocab_size=50)(torch.randint(50, (35, 4))).hidden.shape
        torch.Size([35, 4, 16])
    """

    def __init__(self, vocab_size: int, embedding_size: int, decoder_size: int, tied: bool) -> None:
        super().__init__()
        check_whole(vocab_size=vocab_size, embedding_size=embedding_size)
        check_flags(tied=tied)
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.decoder = Linear(decoder_size, vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        if tied:
            if embedding_size != decoder_size:
                raise ValueError(
                    f"Expected embedding and decoder of one size to tie them, got {embedding_size} and {decoder_size} "
                    "features. Make the sizes equal, or set `tied=False`."
                )
            self.decoder.weight = self.embedding.weight

    @abstractmethod
    def forward(self, tokens: Tensor, state: State = None) -> Output:
        """Read `tokens` (time, columns), continuing from `state` (None: zeros)."""

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood of `targets` (time, columns), in nats per token.

        Args:
            hidden: `Output.hidden`, (time, columns, features).
            targets: the tokens that follow, (time, columns). What is -100 counts for nothing, as in torch.
        """
        hidden, targets = hidden.flatten(0, -2), targets.flatten()
        if torch.is_grad_enabled():
            if _is_plain(self.decoder):
                return softmax_loss(hidden, self.decoder.weight, self.decoder.bias, targets)
            return cross_entropy(self.decoder(hidden), targets)
        rows = rows_at_a_time(hidden, self.vocab_size)
        parts = zip(hidden.split(rows), targets.split(rows), strict=True)
        total = torch.stack([cross_entropy(self.decoder(part), target, "sum") for part, target in parts]).sum()
        return total / counts(targets).sum()

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of every token, (..., vocab_size), from `Output.hidden` (..., features)."""
        return F.log_softmax(self.decoder(hidden), dim=-1)


def _is_plain(decoder: nn.Module) -> bool:
    """Whether its weights say it all: a layer that somebody has replaced, hooked or patched is to be called."""
    return type(decoder) is Linear and decoder.bias is not None and untouched(decoder)
