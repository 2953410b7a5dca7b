"""How a network leaves Python: not by ``torch.jit.script``, but by ``torch.export``."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from lightning_runs import NETWORKS, STACKED
from torch import Tensor, nn

ALL = {"LSTM": STACKED, **NETWORKS}


class Scores(nn.Module):
    """The scores of the next word, from a network's words."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        return self.network(tokens).hidden


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore")
def test_a_network_is_exported_and_not_scripted(name: str) -> None:
    scores = Scores(instantiate(ALL[name], vocab_size=22)).eval()
    tokens = torch.randint(22, (5, 3))
    with pytest.raises((RuntimeError, ValueError, NotImplementedError)):
        torch.jit.script(scores)
    with torch.no_grad():
        exported = torch.export.export(scores, (tokens,), strict=False).module()
        other = torch.randint(22, (5, 3))
        torch.testing.assert_close(exported(other), scores(other))
