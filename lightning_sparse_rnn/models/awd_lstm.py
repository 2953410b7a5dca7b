"""The AWD-LSTM of Merity et al. (2018), and the frame that the networks grown from it share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.models.dropout import embed, locked_dropout
from lightning_sparse_rnn.models.kernels.layer_by_layer import expect_scattered_weights, run_layer, runs_fused
from lightning_sparse_rnn.models.kernels.state import State
from lightning_sparse_rnn.models.kernels.torch_layers import evaluate_layers, evaluates_here, run_recurrent
from lightning_sparse_rnn.models.network import Network, Output
from lightning_sparse_rnn.utilities.checks import check_dropouts, check_whole

__all__ = ["AWDLSTM", "AWDNetwork", "WeightDropLSTM"]


class WeightDropLSTM(nn.LSTM):
    """One LSTM layer that drops weights of its hidden matrix while training, one mask for a sequence.

    Its parameters are those of a one-layer `torch.nn.LSTM`; what is dropped is a copy.

    Args:
        input_size: features of the input.
        hidden_size: features of the output.
        weight_drop: probability of dropping a weight.
        fused_cells: on a GPU, run the layer by a product and one kernel of Triton's a time step, and not by cuDNN.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, input_size: int, hidden_size: int, weight_drop: float, fused_cells: bool = False) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_drop = weight_drop
        self.fused_cells = fused_cells

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if evaluates_here(self, x):
            return evaluate_layers(self, x, state)
        if self.fused_cells and runs_fused("LSTM", x, [self.weight_ih_l0, self.weight_hh_l0]):
            return self._run_fused(x, state)
        return run_recurrent(self._run, x, state)

    def _run_fused(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden = F.dropout(self.weight_hh_l0, self.weight_drop, self.training)
        weights = [self.weight_ih_l0, hidden, self.bias_ih_l0, self.bias_hh_l0]
        output, end = run_layer("LSTM", x, self._start(x) if state is None else state, weights, self.training, True)
        return output, end

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = x.new_zeros(1, x.size(1), self.hidden_size)
        return zeros, zeros

    def _run(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not self.training or self.weight_drop == 0:
            output, state = super().forward(x, state)
            return output, state
        state = self._start(x) if state is None else state
        hidden = F.dropout(self.weight_hh_l0, self.weight_drop)
        weights = [self.weight_ih_l0, hidden, self.bias_ih_l0, self.bias_hh_l0]
        if x.is_cuda:
            expect_scattered_weights()
        output, h, c = torch.lstm(x, state, weights, True, 1, 0.0, True, False, False)
        return output, (h, c)


class AWDNetwork(Network):
    """Embedding, recurrent layers, decoder, with the dropouts of the AWD-LSTM, whose sizes and rates are the defaults.

    The state is a tuple of each layer's.

    Args:
        vocab_size: number of distinct tokens.
        embedding_size: features of a token's embedding.
        hidden_size: features of every layer but the last.
        make_layer: from input size and output size to a layer, which maps (x, state or None) to (outputs, state).
        last_size: features of the last layer; None: those of the embedding if tied, or else of the other layers.
        num_layers: number of layers.
        tied: share one weight between embedding and decoder; needs what the decoder reads to be of `embedding_size`.
        dropout_embedding: probability of dropping a word of the vocabulary.
        dropout_input: probability of dropping a feature of the first layer's input.
        dropout_between: probability of dropping a feature between layers.
        dropout_output: probability of dropping a feature of the last layer's output. All masks hold for a sequence.
        decoder_size: features that the decoder reads; None: the last layer's.

    Raises:
        ValueError: if a size is not positive, a dropout is outside [0, 1), or tied sizes differ.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        make_layer: Callable[[int, int], nn.Module],
        *,
        last_size: int | None = None,
        num_layers: int = 3,
        tied: bool = True,
        dropout_embedding: float = 0.1,
        dropout_input: float = 0.4,
        dropout_between: float = 0.25,
        dropout_output: float = 0.4,
        decoder_size: int | None = None,
    ) -> None:
        if last_size is None:
            last_size = embedding_size if tied else hidden_size
        check_whole(hidden_size=hidden_size, last_size=last_size, num_layers=num_layers)
        check_dropouts(
            dropout_embedding=dropout_embedding,
            dropout_input=dropout_input,
            dropout_between=dropout_between,
            dropout_output=dropout_output,
        )
        super().__init__(vocab_size, embedding_size, decoder_size or last_size, tied)
        self.dropout_embedding = dropout_embedding
        self.dropout_input = dropout_input
        self.dropout_between = dropout_between
        self.dropout_output = dropout_output
        sizes = [embedding_size, *[hidden_size] * (num_layers - 1), last_size]
        self.layers = nn.ModuleList(make_layer(*pair) for pair in itertools.pairwise(sizes))

    def forward(self, tokens: Tensor, state: State = None) -> Output:
        raw = embed(self.embedding, tokens, self.dropout_embedding, self.training)
        dropouts = [self.dropout_input, *[self.dropout_between] * (len(self.layers) - 1)]
        states = []
        for index, (layer, dropout) in enumerate(zip(self.layers, dropouts, strict=True)):
            raw, new = layer(locked_dropout(raw, dropout, self.training), None if state is None else state[index])
            states.append(new)
        return Output(locked_dropout(raw, self.dropout_output, self.training), raw, tuple(states))


class AWDLSTM(AWDNetwork):
    """LSTM layers with the AWD-LSTM's dropouts. A layer's state is `(h, c)`, each (1, columns, features).

    Args:
        weight_drop: probability of dropping a weight of a layer's hidden matrix, one mask for a sequence.
        fused_cells: on a GPU, run the layers by a product and one kernel of Triton's a time step, and not by cuDNN.
        options: the other arguments of `AWDNetwork`.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.models import AWDLSTM
        >>> network = AWDLSTM(vocab_size=50, embedding_size=16, hidden_size=24, num_layers=2)
        >>> tokens = torch.randint(50, (35, 4))  # 35 time steps in 4 columns
        >>> output = network(tokens)
        >>> output.hidden.shape
        torch.Size([35, 4, 16])
        >>> loss = network.loss(output.hidden, targets=tokens.roll(-1, 0))
        >>> [tuple(part.shape) for layer in output.state for part in layer]
        [(1, 4, 24), (1, 4, 24), (1, 4, 16), (1, 4, 16)]
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 400,
        hidden_size: int = 1150,
        *,
        weight_drop: float = 0.5,
        fused_cells: bool = False,
        **options: Any,
    ) -> None:
        check_dropouts(weight_drop=weight_drop)
        super().__init__(
            vocab_size,
            embedding_size,
            hidden_size,
            lambda fan_in, size: WeightDropLSTM(fan_in, size, weight_drop, fused_cells),
            **options,
        )
