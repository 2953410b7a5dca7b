"""The ordered-neurons LSTM of Shen et al. (2019)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.models.awd_lstm import AWDNetwork
from lightning_sparse_rnn.models.kernels.linear import linear
from lightning_sparse_rnn.models.kernels.ordered_recurrence import ordered_recurrence
from lightning_sparse_rnn.utilities.checks import check_dropouts, check_whole

__all__ = ["OrderedNeuronsLSTM", "OrderedNeuronsLayer"]


class OrderedNeuronsLayer(nn.Module):
    """An LSTM layer whose neurons are in order: master gates say from where on to erase, and up to where to write.

    One matrix holds all gates, in the rows master input, master forget (one row for each chunk of neurons), output,
    cell, input, forget. All weights start as those of `torch.nn.LSTM`.

    Args:
        input_size: features of the input.
        hidden_size: features of the output.
        chunk_size: number of neurons that share a value of the master gates.
        weight_drop: probability of dropping a weight of the hidden matrix while training, one mask for a sequence.

    Raises:
        ValueError: if `chunk_size` does not divide `hidden_size`.
    """

    def __init__(self, input_size: int, hidden_size: int, chunk_size: int, weight_drop: float = 0.0) -> None:
        super().__init__()
        check_whole(chunk_size=chunk_size)
        if hidden_size % chunk_size:
            raise ValueError(
                f"Expected layers of a multiple of `chunk_size` neurons, got {hidden_size} neurons in chunks of "
                f"{chunk_size}. Change either."
            )
        self.hidden_size, self.chunks, self.weight_drop = hidden_size, hidden_size // chunk_size, weight_drop
        rows = 2 * self.chunks + 4 * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden_size), 1 / math.sqrt(hidden_size))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map `x` (time, columns, input_size) to the outputs and the last state.

        Args:
            state: output and cell before the first step, each (columns, hidden_size); None: zeros.
        """
        inputs = linear(x, self.weight_ih, self.bias_ih + self.bias_hh)
        if state is None:
            zeros = x.new_zeros(x.size(1), self.hidden_size)
            state = (zeros, zeros)
        # Under autocast the input's product comes in lower precision, and the hidden one is to be made in the same.
        weight = F.dropout(self.weight_hh, self.weight_drop, self.training).to(inputs.dtype)
        # Of its own accord the recurrence is of float32 at least.
        outputs, cell = (part.to(x.dtype) for part in ordered_recurrence(inputs, *state, weight, self.chunks))
        return outputs, (outputs[-1].clone(), cell)

    def gate_rows(self) -> dict[str, dict[str, int]]:
        """Rows of every gate in each weight, in row order."""
        master = dict.fromkeys(("master_input", "master_forget"), self.chunks)
        gates = dict.fromkeys(("output", "cell", "input", "forget"), self.hidden_size)
        return {name: {**master, **gates} for name in ("weight_ih", "weight_hh")}


class OrderedNeuronsLSTM(AWDNetwork):
    """Ordered-neurons layers with the AWD-LSTM's dropouts. A layer's state is `(h, c)`, each (columns, features).

    The defaults are the Selfish-RNN paper's: 25 M weights on the Penn Treebank.

    Args:
        chunk_size: number of neurons that share a value of the master gates; divides every layer's size.
        weight_drop: probability of dropping a weight of a layer's hidden matrix, one mask for a sequence.
        options: the other arguments of `AWDNetwork`.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.models import OrderedNeuronsLSTM
        >>> network = OrderedNeuronsLSTM(vocab_size=50, embedding_size=16, hidden_size=24, num_layers=2, chunk_size=4)
        >>> tokens = torch.randint(50, (35, 4))  # 35 time steps in 4 columns
        >>> output = network(tokens)
        >>> output.hidden.shape
        torch.Size([35, 4, 16])
        >>> loss = network.loss(output.hidden, targets=tokens.roll(-1, 0))
        >>> [tuple(part.shape) for layer in output.state for part in layer]
        [(4, 24), (4, 24), (4, 16), (4, 16)]
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 400,
        hidden_size: int = 1150,
        *,
        chunk_size: int = 10,
        dropout_input: float = 0.5,
        dropout_between: float = 0.3,
        dropout_output: float = 0.45,
        weight_drop: float = 0.45,
        **options: Any,
    ) -> None:
        check_dropouts(weight_drop=weight_drop)
        super().__init__(
            vocab_size,
            embedding_size,
            hidden_size,
            lambda fan_in, size: OrderedNeuronsLayer(fan_in, size, chunk_size, weight_drop),
            dropout_input=dropout_input,
            dropout_between=dropout_between,
            dropout_output=dropout_output,
            **options,
        )
