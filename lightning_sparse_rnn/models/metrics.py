"""The loss over a whole text."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["TokenMean"]


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

    def update(self, mean: Tensor, tokens: int) -> None:
        """Add a batch of `tokens` tokens whose mean is `mean`."""
        # Not in place: whoever holds the old sums (to save them) keeps them.
        self.total = self.total + mean.detach().float() * tokens
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
