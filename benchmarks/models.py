"""The network that is measured: as this package makes it, and written in torch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.setting import Setting, Size
from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.sparsity import SparseTopology

__all__ = ["CLIP", "LEARNING_RATE", "SPARSITY", "WEIGHT_DECAY", "DenseLSTM", "averaging", "language_model", "text"]

SPARSITY = 0.67
DROPOUT = 0.65
#: Small, so that no weight runs away from random gradients; the arithmetic is the same.
LEARNING_RATE = 0.1
WEIGHT_DECAY = 1.2e-6
CLIP = 0.25


class DenseLSTM(nn.Module):
    """The language model that one would write with ``nn.LSTM``."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.rnn = nn.LSTM(size.width, size.width, size.layers, dropout=DROPOUT)
        self.decoder = nn.Linear(size.width, size.vocabulary)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, tokens: Tensor, targets: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, object]:
        output, state = self.rnn(self.dropout(self.embedding(tokens)), state)
        logits = self.decoder(self.dropout(output))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state


def language_model(size: Size, optimizer: str, **options: Any) -> LanguageModel:
    """The same network of this package's, with an optimizer by its import path, and options of it."""
    torch.manual_seed(0)
    return LanguageModel(
        network={
            "_target_": "lightning_sparse_rnn.models.StackedLSTM",
            "embedding_size": size.width,
            "hidden_size": size.width,
            "num_layers": size.layers,
            "dropout": DROPOUT,
        },
        vocab_size=size.vocabulary,
        optimizer={"_target_": optimizer, "lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, **options},
    )


def averaging(parameters: list[nn.Parameter], topology: SparseTopology) -> SNTASGD:
    """An optimizer in the midst of its averages: there have been steps, and an update of the topology."""
    optimizer = SNTASGD(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    optimizer.set_masks(topology.masks)
    optimizer.restart()
    optimizer.step()
    optimizer.set_masks(topology.masks, topology.update(0.5).born)
    optimizer.step()
    return optimizer


def text(setting: Setting) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Batches without end of a random text, which lies on the device."""
    size = setting.size
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(size.vocabulary, (8 * size.steps + 1, size.columns), generator=generator).to(setting.device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for start in range(0, len(rows) - 1, size.steps):
                yield rows[start : start + size.steps], rows[start + 1 : start + size.steps + 1]

    return batches
