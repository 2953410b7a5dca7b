"""Networks in torch's own layers compute the same, and can be quantised."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_sparse_rnn.models import AWDLSTM, GRU, LSTM, AWDLSTMMoS, Network, RecurrentHighwayNetwork
from lightning_sparse_rnn.models.plain_layers import with_plain_layers

NETWORKS = [LSTM(40, 16, 16), GRU(40, 16, 16), AWDLSTM(40, 16, 16), AWDLSTMMoS(40, 16, 16, last_size=12)]
NETWORKS += [RecurrentHighwayNetwork(40, 16, 16, 2)]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
@pytest.mark.filterwarnings("ignore:.*(torch.ao.quantization|torch.quantization|Quantized|quantize).*")
def test_the_same_and_quantised_nearly_the_same(network: Network) -> None:
    classes = [type(module) for module in network.modules()]
    training = network.training
    tokens = torch.randint(40, (7, 3))
    plain = with_plain_layers(network)
    assert [type(module) for module in network.modules()] == classes
    assert network.training == training
    with torch.no_grad():
        same = copy.deepcopy(network).eval()
        expected = same(tokens)
        got = plain(tokens)
        torch.testing.assert_close(got.hidden, expected.hidden)
        torch.testing.assert_close(plain.log_probs(got.hidden), same.log_probs(expected.hidden))
        if not torch.backends.quantized.supported_engines[1:]:
            pytest.skip("this torch cannot quantise")
        small = torch.ao.quantization.quantize_dynamic(plain, {nn.LSTM, nn.GRU, nn.Linear})
        found = {type(module).__module__ for module in small.modules()}
        assert any("quantized" in module for module in found)
        dense = [module for module in small.modules() if type(module) in (nn.LSTM, nn.GRU, nn.Linear)]
        assert not dense
        result = small(tokens)
        torch.testing.assert_close(small.log_probs(result.hidden), same.log_probs(expected.hidden), atol=0.1, rtol=0)
