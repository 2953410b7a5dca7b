"""The loss over a whole text."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_sparse_rnn.models.kernels.softmax_loss import counts

__all__ = ["UNKNOWN_ID", "TokenMean", "counted_tokens", "measures", "tests_untrained"]

#: What a `TextDataModule` makes of a token that the training text does not have.
UNKNOWN_ID = 0


class TokenMean(Metric):
    """Mean of a per-token quantity over batches of unequal numbers of tokens, over all processes.

    torchmetrics' own `MeanMetric` removes NaN from the mean (and looks for it, which waits for the device at every
    step) or, when told not to, ignores the weights. Here a NaN loss gives a NaN mean, and nothing waits.
    """

    full_state_update = False
    total: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("tokens", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, mean: Tensor, tokens: int | Tensor) -> None:
        """Add a batch of `tokens` tokens whose mean is `mean`; of none it is NaN, and adds nothing."""
        tokens = torch.as_tensor(tokens, device=self.total.device)
        # Not in place: whoever holds the old sums (to save them) keeps them.
        self.total = self.total + torch.where(tokens == 0, 0.0, mean.detach().float() * tokens)
        self.tokens = self.tokens + tokens

    def compute(self) -> Tensor:
        """Mean over all tokens so far."""
        return self.total / self.tokens

    def load(self, total: Tensor, tokens: Tensor) -> None:
        """Continue from the sums `total` and `tokens` of an earlier run."""
        self.reset()
        self.update(torch.zeros_like(self.total), 0)
        self.total = total.to(self.total.device)
        self.tokens = tokens.to(self.tokens.device)


def counted_tokens(targets: Tensor) -> Tensor:
    """Of how many targets a loss is the mean: all but those that are ignored."""
    return counts(targets).sum()


def measures(stage: str, loss: Tensor, data: Any) -> dict[str, Tensor]:
    """What is reported of a mean loss in nats: itself, the perplexity, and bits per character where that is the custom.

    Args:
        stage: "train", "val" or "test"; the beginning of every name.
        loss: mean over all tokens of the text.
        data: what the text came from; a `TextDataModule` says of tokens other than words how long they are.
    """
    result = {f"{stage}_loss": loss, f"{stage}_ppl": loss.exp()}
    characters = getattr(data, "characters_per_token", {}).get({"val": "valid"}.get(stage, stage))
    if characters:
        result[f"{stage}_bpc"] = loss / (math.log(2) * characters)
    return result


def tests_untrained(data: Any) -> bool:
    """Whether the test text of `data`, as far as that says so, has unknown tokens and the training text has none."""
    shares = getattr(data, "unknown_shares", None)
    return bool(shares and not shares["train"] and shares["test"])
