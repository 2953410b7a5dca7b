"""The stacked LSTM of Zaremba et al. (2014), the paper's first network."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_sparse_rnn.models.checks import check_dropouts, check_sizes
from lightning_sparse_rnn.models.network import Network, Output, State

__all__ = ["StackedLSTM"]


class StackedLSTM(Network):
    """LSTM layers with dropout before, between and after them.

    The layers are one `torch.nn.LSTM`, so that cuDNN runs them. The state is `(h, c)`, each
    (num_layers, columns, hidden_size).

    Args:
        vocab_size: number of distinct tokens.
        embedding_size: features of a token's embedding.
        hidden_size: features of every layer.
        num_layers: number of layers.
        dropout: probability of dropping a feature, in [0, 1).
        tied: share one weight between embedding and decoder; needs `embedding_size == hidden_size`.

    Raises:
        ValueError: if a size is not positive, `dropout` is outside [0, 1), or tied sizes differ.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 1500,
        hidden_size: int = 1500,
        num_layers: int = 2,
        dropout: float = 0.65,
        tied: bool = False,
    ) -> None:
        check_sizes(hidden_size=hidden_size, num_layers=num_layers)
        check_dropouts(dropout=dropout)
        super().__init__(vocab_size, embedding_size, hidden_size, tied)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers, dropout=dropout if num_layers > 1 else 0.0)

    def forward(self, tokens: Tensor, state: State = None) -> Output:
        raw, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return Output(self.dropout(raw), raw, state)
