"""Language models: the LightningModule and the networks it trains."""

from lightning_sparse_rnn.models.language_model import LanguageModel
from lightning_sparse_rnn.models.network import Network, Output
from lightning_sparse_rnn.models.stacked_lstm import StackedLSTM

__all__ = ["LanguageModel", "Network", "Output", "StackedLSTM"]
