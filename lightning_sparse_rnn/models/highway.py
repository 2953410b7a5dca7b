"""The recurrent highway network of Zilly et al. (2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.models.dropout import embed, locked_dropout, locked_mask
from lightning_sparse_rnn.models.kernels.highway_recurrence import highway_recurrence
from lightning_sparse_rnn.models.kernels.linear import linear
from lightning_sparse_rnn.models.kernels.state import State
from lightning_sparse_rnn.models.network import Network, Output
from lightning_sparse_rnn.utilities.checks import check_dropouts, check_whole

__all__ = ["HighwayLayer", "RecurrentHighwayNetwork"]


class HighwayLayer(nn.Module):
    """A recurrent layer whose step from one state to the next is `depth` highway layers deep.

    The input enters at the first depth only. One matrix holds all gates of a depth, in the rows hidden, transform
    and, unless they are coupled (c = 1 − t), carry. All weights start as those of `torch.nn.Linear`.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        depth: number of highway layers in a time step.
        coupled: carry what is not transformed, s ← h ⊙ t + s ⊙ (1 − t).
        dropout: probability of dropping a feature of the state on its way to the gates. One mask is drawn for a
            sequence and holds for all its steps and depths; what is carried is not dropped.
    """

    def __init__(self, input_size: int, hidden_size: int, depth: int, coupled: bool, dropout: float) -> None:
        super().__init__()
        self.hidden_size, self.depth, self.coupled, self.dropout = hidden_size, depth, coupled, dropout
        rows = (2 if coupled else 3) * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        nn.init.uniform_(self.weight_ih, -1 / math.sqrt(input_size), 1 / math.sqrt(input_size))
        bound = 1 / math.sqrt(hidden_size)
        for d in range(depth):
            self.register_parameter(f"weight_hh_d{d}", nn.Parameter(torch.empty(rows, hidden_size)))
            self.register_parameter(f"bias_d{d}", nn.Parameter(torch.empty(rows)))
            nn.init.uniform_(self.get_parameter(f"weight_hh_d{d}"), -bound, bound)
            nn.init.uniform_(self.get_parameter(f"bias_d{d}"), -bound, bound)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map `x` (time, columns, input_size) to the states after every step and the last of them.

        Args:
            state: the state before the first step, (columns, hidden_size); None: zeros.
        """
        first, *biases = [getattr(self, f"bias_d{d}") for d in range(self.depth)]
        inputs = linear(x, self.weight_ih, first)
        if state is None:
            state = x.new_zeros(x.size(1), self.hidden_size)
        mask = None
        if self.training and self.dropout > 0:
            mask = locked_mask(state.expand(1, -1, -1), self.dropout)
        # Under autocast the input's product comes in lower precision, and the state's is to be made in the same.
        weights = [getattr(self, f"weight_hh_d{d}").to(inputs.dtype) for d in range(self.depth)]
        # Of its own accord the recurrence is of float32 at least.
        states = highway_recurrence(inputs, state, weights, biases, mask).to(x.dtype)
        return states, states[-1].clone()

    def gate_rows(self) -> dict[str, dict[str, int]]:
        """Rows of every gate in each weight, in row order."""
        gates = ["hidden", "transform"] if self.coupled else ["hidden", "transform", "carry"]
        names = ["weight_ih", *(f"weight_hh_d{d}" for d in range(self.depth))]
        return {name: dict.fromkeys(gates, self.hidden_size) for name in names}


class RecurrentHighwayNetwork(Network):
    """Embedding, one `HighwayLayer`, decoder, with variational dropout: one mask for a sequence.

    The defaults are the Selfish-RNN paper's: 23.5 M weights on the Penn Treebank. The state is one tensor,
    (columns, hidden_size).

    Args:
        vocab_size: number of distinct tokens.
        embedding_size: features of a token's embedding.
        hidden_size: features of the state.
        depth: number of highway layers in a time step.
        coupled: whether the carry gate is 1 − transform or has weights of its own.
        tied: share one weight between embedding and decoder; needs `embedding_size == hidden_size`.
        dropout_embedding: probability of dropping a word of the vocabulary.
        dropout_input: probability of dropping a feature of the layer's input.
        dropout_hidden: probability of dropping a feature of the state on its way to the gates.
        dropout_output: probability of dropping a feature of the layer's output.

    Raises:
        ValueError: if a size is not positive, a dropout is outside [0, 1), or tied sizes differ.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.models import RecurrentHighwayNetwork
        >>> network = RecurrentHighwayNetwork(vocab_size=50, embedding_size=16, hidden_size=16, depth=3)
        >>> tokens = torch.randint(50, (35, 4))  # 35 time steps in 4 columns
        >>> output = network(tokens)
        >>> output.hidden.shape
        torch.Size([35, 4, 16])
        >>> loss = network.loss(output.hidden, targets=tokens.roll(-1, 0))
        >>> output.state.shape
        torch.Size([4, 16])
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 830,
        hidden_size: int = 830,
        depth: int = 10,
        coupled: bool = True,
        tied: bool = True,
        dropout_embedding: float = 0.2,
        dropout_input: float = 0.65,
        dropout_hidden: float = 0.25,
        dropout_output: float = 0.65,
    ) -> None:
        check_whole(hidden_size=hidden_size, depth=depth)
        check_dropouts(
            dropout_embedding=dropout_embedding,
            dropout_input=dropout_input,
            dropout_hidden=dropout_hidden,
            dropout_output=dropout_output,
        )
        super().__init__(vocab_size, embedding_size, hidden_size, tied)
        self.dropout_embedding = dropout_embedding
        self.dropout_input = dropout_input
        self.dropout_output = dropout_output
        self.layer = HighwayLayer(embedding_size, hidden_size, depth, coupled, dropout_hidden)

    def forward(self, tokens: Tensor, state: State = None) -> Output:
        x = embed(self.embedding, tokens, self.dropout_embedding, self.training)
        raw, state = self.layer(locked_dropout(x, self.dropout_input, self.training), state)
        return Output(locked_dropout(raw, self.dropout_output, self.training), raw, state)
