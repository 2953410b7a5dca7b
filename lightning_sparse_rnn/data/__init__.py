"""Text: where it comes from, as token ids, in batches, and as a LightningDataModule."""

from lightning_sparse_rnn.data.batches import ColumnBatches
from lightning_sparse_rnn.data.corpus import Corpus, Vocabulary, unigram_perplexity
from lightning_sparse_rnn.data.datamodule import TextDataModule
from lightning_sparse_rnn.data.lengths import SequenceLengths
from lightning_sparse_rnn.data.part_order import PartOrder

__all__ = [
    "ColumnBatches",
    "Corpus",
    "PartOrder",
    "SequenceLengths",
    "TextDataModule",
    "Vocabulary",
    "unigram_perplexity",
]
