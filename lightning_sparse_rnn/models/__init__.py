"""Language models: the LightningModule and the networks it trains.

`LanguageModel` is imported when it is first asked for, so that the networks need torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse_rnn.models.awd_lstm import AWDLSTM
from lightning_sparse_rnn.models.highway import RecurrentHighwayNetwork
from lightning_sparse_rnn.models.mixture_of_softmaxes import AWDLSTMMoS
from lightning_sparse_rnn.models.network import Network, Output
from lightning_sparse_rnn.models.ordered_neurons import OrderedNeuronsLSTM
from lightning_sparse_rnn.models.stacked import GRU, LSTM, StackedLSTM

if TYPE_CHECKING:
    from lightning_sparse_rnn.models.language_model import LanguageModel

__all__ = [
    "AWDLSTM",
    "GRU",
    "LSTM",
    "AWDLSTMMoS",
    "LanguageModel",
    "Network",
    "OrderedNeuronsLSTM",
    "Output",
    "RecurrentHighwayNetwork",
    "StackedLSTM",
]


#: What a file may name and have built.
NETWORKS: tuple[type[Network], ...] = (
    AWDLSTM,
    AWDLSTMMoS,
    GRU,
    LSTM,
    OrderedNeuronsLSTM,
    RecurrentHighwayNetwork,
    StackedLSTM,
)


def __getattr__(name: str) -> Any:
    if name != "LanguageModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lightning_sparse_rnn.models.language_model import LanguageModel

    return LanguageModel
