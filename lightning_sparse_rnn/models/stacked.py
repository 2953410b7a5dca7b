"""Stacked LSTM and GRU layers with plain dropout, as Zaremba et al. (2014) use them."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_sparse_rnn.models.kernels.layer_by_layer import run_stacked
from lightning_sparse_rnn.models.kernels.state import State
from lightning_sparse_rnn.models.kernels.torch_layers import evaluate_layers, evaluates_here, run_recurrent
from lightning_sparse_rnn.models.network import Network, Output
from lightning_sparse_rnn.utilities.checks import check_dropouts, check_flags, check_whole

__all__ = ["GRU", "LSTM", "StackedLSTM"]


class _Stacked(Network):
    """Layers of one of torch's recurrent modules, with dropout around each."""

    layer_type: type[nn.LSTM] | type[nn.GRU]

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 200,
        hidden_size: int = 200,
        num_layers: int = 2,
        dropout: float = 0.2,
        tied: bool = False,
        fused_cells: bool = False,
        *,
        dropout_input: float | None = None,
        dropout_between: float | None = None,
        dropout_output: float | None = None,
    ) -> None:
        check_whole(hidden_size=hidden_size, num_layers=num_layers)
        check_flags(fused_cells=fused_cells)
        before = dropout if dropout_input is None else dropout_input
        between = dropout if dropout_between is None else dropout_between
        after = dropout if dropout_output is None else dropout_output
        check_dropouts(dropout=dropout, dropout_input=before, dropout_between=between, dropout_output=after)
        super().__init__(vocab_size, embedding_size, hidden_size, tied)
        self.dropout = nn.Dropout(before)
        # One module for both places, as long as they have one rate, so that it can be changed in one place.
        self.dropout_output = self.dropout if after == before else nn.Dropout(after)
        self.layers = self.layer_type(
            embedding_size, hidden_size, num_layers, dropout=between if num_layers > 1 else 0.0
        )
        self.fused_cells = fused_cells

    def forward(self, tokens: Tensor, state: State = None) -> Output:
        x = self.dropout(self.embedding(tokens))
        if type(self.layers).forward is not self.layer_type.forward:  # layers of somebody's own
            raw, state = run_recurrent(self.layers, x, state)
        elif evaluates_here(self.layers, x):
            raw, state = evaluate_layers(self.layers, x, state)
        else:
            raw, state = run_stacked(self.layers, x, state, self.fused_cells)
        return Output(self.dropout_output(raw), raw, state)


class LSTM(_Stacked):
    """LSTM layers with dropout around each. The state is `(h, c)`, each (num_layers, columns, hidden_size).

    Args:
        vocab_size: number of distinct tokens.
        embedding_size: features of a token's embedding.
        hidden_size: features of every layer.
        num_layers: number of layers.
        dropout: probability of dropping a feature before, between and after the layers, in [0, 1).
        tied: share one weight between embedding and decoder; needs `embedding_size == hidden_size`.
        fused_cells: on a GPU, run the layers by a product and one kernel of Triton's a time step, and not by cuDNN.
            With `matmul_precision` "high" or "medium" factors of these products have 16 bits. A CPU passes over it.
        dropout_input: probability of dropping a feature before the layers; None: `dropout`.
        dropout_between: the same between layers.
        dropout_output: the same after the last layer.

    Raises:
        ValueError: if a size is not positive, a dropout is outside [0, 1), or tied sizes differ.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.models import LSTM
        >>> network = LSTM(vocab_size=50, embedding_size=16, hidden_size=16)
        >>> tokens = torch.randint(50, (35, 4))  # 35 time steps in 4 columns
        >>> output = network(tokens)
        >>> output.hidden.shape
        torch.Size([35, 4, 16])
        >>> loss = network.loss(output.hidden, targets=tokens.roll(-1, 0))
        >>> [tuple(part.shape) for part in output.state]
        [(2, 4, 16), (2, 4, 16)]
    """

    layer_type = nn.LSTM


class GRU(_Stacked):
    """GRU layers with dropout around each. The state is one tensor, (num_layers, columns, hidden_size).

    Args:
        vocab_size: number of distinct tokens.
        embedding_size: features of a token's embedding.
        hidden_size: features of every layer.
        num_layers: number of layers.
        dropout: probability of dropping a feature before, between and after the layers, in [0, 1).
        tied: share one weight between embedding and decoder; needs `embedding_size == hidden_size`.
        fused_cells: on a GPU, run the layers by a product and one kernel of Triton's a time step, and not by cuDNN.
            With `matmul_precision` "high" or "medium" factors of these products have 16 bits. A CPU passes over it.
        dropout_input: probability of dropping a feature before the layers; None: `dropout`.
        dropout_between: the same between layers.
        dropout_output: the same after the last layer.

    Raises:
        ValueError: if a size is not positive, a dropout is outside [0, 1), or tied sizes differ.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.models import GRU
        >>> network = GRU(vocab_size=50, embedding_size=16, hidden_size=16)
        >>> tokens = torch.randint(50, (35, 4))  # 35 time steps in 4 columns
        >>> output = network(tokens)
        >>> output.hidden.shape
        torch.Size([35, 4, 16])
        >>> loss = network.loss(output.hidden, targets=tokens.roll(-1, 0))
        >>> output.state.shape
        torch.Size([2, 4, 16])
    """

    layer_type = nn.GRU


class StackedLSTM(LSTM):
    """`LSTM` at the size of the Selfish-RNN paper's first network: 66.0 M weights on the Penn Treebank.

    Args:
        places: `dropout_input`, `dropout_between` and `dropout_output` of `LSTM`, as are the other arguments.

    Examples:
        >>> from lightning_sparse_rnn.models import StackedLSTM
        >>> network = StackedLSTM(vocab_size=50, embedding_size=16, hidden_size=16)  # as small as one likes
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 1500,
        hidden_size: int = 1500,
        num_layers: int = 2,
        dropout: float = 0.65,
        tied: bool = False,
        fused_cells: bool = False,
        **places: float | None,
    ) -> None:
        super().__init__(vocab_size, embedding_size, hidden_size, num_layers, dropout, tied, fused_cells, **places)
