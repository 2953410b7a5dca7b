"""Language models: the LightningModule and the networks it trains."""

from lightning_sparse_rnn.models.awd_lstm import AWDLSTM
from lightning_sparse_rnn.models.highway import RecurrentHighwayNetwork
from lightning_sparse_rnn.models.language_model import LanguageModel
from lightning_sparse_rnn.models.mixture_of_softmaxes import AWDLSTMMoS
from lightning_sparse_rnn.models.network import Network, Output
from lightning_sparse_rnn.models.ordered_neurons import OrderedNeuronsLSTM
from lightning_sparse_rnn.models.stacked import GRU, LSTM, StackedLSTM

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
