"""Evaluation: forward and loss without gradients, batch by batch with the state carried on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.floors import Floors
from benchmarks.models import DenseLSTM, language_model, text
from benchmarks.setting import Setting
from benchmarks.turns import Figure, compare, take_turns

__all__ = ["measure"]

DENSE = "dense: `nn.LSTM`"
OURS = "`LanguageModel`, sparse or dense"
_BATCHES = 4


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Compare a batch of both."""
    torch.manual_seed(0)
    dense = DenseLSTM(setting.size).to(setting.device).eval()
    network = language_model(setting.size, "torch.optim.SGD").network.to(setting.device).eval()

    def ours(tokens: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        output = network(tokens, state)
        return network.loss(output.hidden, targets), output.state

    @torch.inference_mode()
    def evaluate(model: Any) -> None:
        state, batches = None, text(setting)()
        for _ in range(_BATCHES):
            _, state = model(*next(batches), state)

    times = take_turns({DENSE: lambda: evaluate(dense), OURS: lambda: evaluate(ours)}, setting)
    floor = floors.multiplying(setting.size, passes=1)
    return compare("evaluation of a batch", times, DENSE, {DENSE: floor, OURS: floor}, each=_BATCHES)
