"""Mixed precision whose loss scaling leaves steps out, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor
from toy_runs import Net


class Overflows(Net):
    """Has an infinite loss in the second batch of every epoch."""

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * float("inf") if batch_idx == 1 else loss


def overflows(optimizer: Any) -> Overflows:
    torch.manual_seed(1)
    return Overflows(optimizer)


class ScaledOnCPU(MixedPrecision):
    """16-mixed with its loss scaling, but bfloat16 arithmetic: there are no LSTMs in float16 on a CPU."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)
