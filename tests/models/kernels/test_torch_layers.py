"""What is made faster on a CPU against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_sparse_rnn.models import (
    AWDLSTM,
    GRU,
    LSTM,
    AWDLSTMMoS,
    OrderedNeuronsLSTM,
    RecurrentHighwayNetwork,
)
from lightning_sparse_rnn.models.kernels import torch_layers
from lightning_sparse_rnn.models.kernels.torch_layers import evaluate_layers, evaluates_here, run_recurrent


@pytest.fixture
def _small(monkeypatch):
    """Let layers of any size be evaluated here."""
    monkeypatch.setattr(torch_layers, "_FASTER_FROM", {"LSTM": 1, "GRU": 1})


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [True, False])
def test_layers_equal_torchs(kind, layers, dtype, given):
    module, x = kind(3, 5, layers).to(dtype), torch.randn(12, 4, 3, dtype=dtype)
    start = torch.randn(layers, 4, 5, dtype=dtype)
    state = None if not given else (start, start.flip(0)) if kind is nn.LSTM else start
    with torch.no_grad():
        torch.testing.assert_close(evaluate_layers(module, x, state), module(x, state))
        if given:
            torch.testing.assert_close(start, state[0] if kind is nn.LSTM else state)


def test_states_of_too_few_layers_are_refused_as_torch_does():
    for module, state in [(nn.GRU(3, 5, 2), torch.zeros(1, 4, 5)), (nn.LSTM(3, 5, 2), (torch.zeros(1, 4, 5),) * 2)]:
        with torch.no_grad(), pytest.raises(ValueError, match="shorter"):
            evaluate_layers(module, torch.randn(12, 4, 3), state)


@pytest.mark.parametrize("module", [nn.LSTM(3, 640), nn.GRU(3, 200)])
def test_only_where_nothing_is_lost(module):
    x = torch.randn(12, 4, 3)
    with torch.no_grad():
        assert not evaluates_here(module, x)
        module.eval()
        assert evaluates_here(module, x)
        assert not evaluates_here(module, x[:1])
        assert not evaluates_here(module, x[:, :1])
        assert not evaluates_here(module, x[:, 0])
        assert not evaluates_here(module, x.double())
        assert not evaluates_here(type(module)(3, 100).eval(), x)
        with module.register_forward_pre_hook(lambda *_: None):
            assert not evaluates_here(module, x)
        with module.register_forward_hook(lambda *_: None):
            assert not evaluates_here(module, x)
        with nn.modules.module.register_module_forward_hook(lambda *_: None):
            assert not evaluates_here(module, x)
        assert evaluates_here(module, x)
        assert not evaluates_here(module, x.to("meta"))
        with torch.autocast("cpu"):
            assert not evaluates_here(module, x)
    assert not evaluates_here(module, x)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_hooks_and_parametrised_weights_are_heeded_in_evaluation(kind):
    network, tokens = kind(9, 4, 4).eval(), torch.randint(9, (12, 3))
    torch.nn.utils.prune.random_unstructured(network.layers, "weight_hh_l0", amount=0.5)
    network.load_state_dict({name: value + 0.1 for name, value in network.state_dict().items()})
    network.layers.register_forward_hook(lambda module, given, output: (2 * output[0], output[1]))
    expected = network(tokens).hidden.detach()
    with torch.no_grad():
        torch.testing.assert_close(network(tokens).hidden, expected)


class Doubled(nn.LSTM):
    def forward(self, x, state=None):
        outputs, state = super().forward(x, state)
        return 2 * outputs, state


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("patched", [True, False])
def test_layers_of_ones_own_are_called_in_evaluation(patched):
    network, tokens = LSTM(9, 4, 4).eval(), torch.randint(9, (12, 3))
    expected = 2 * network(tokens).hidden.detach()
    own = Doubled(4, 4, 2).eval()
    own.load_state_dict(network.layers.state_dict())
    if patched:
        network.layers.forward = own.forward
    else:
        network.layers = own
    with torch.no_grad():
        torch.testing.assert_close(network(tokens).hidden, expected)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("network", [LSTM(9, 4, 4), AWDLSTM(9, 4, 4), AWDLSTMMoS(9, 4, 4)])
def test_what_is_compiled_is_torchs_own_operators(network):
    called = set()

    def compiler(graph, inputs):
        called.update(str(node.target) for node in graph.graph.nodes if node.op != "placeholder")
        return graph.forward

    tokens = torch.randint(9, (12, 3))
    with torch.inference_mode():
        expected = network.eval().log_probs(network(tokens).hidden)
        given = torch.compile(lambda tokens: network.log_probs(network(tokens).hidden), backend=compiler)(tokens)
    torch.testing.assert_close(given, expected)
    assert called
    assert not any("mkldnn" in name for name in called)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    "network", [LSTM(9, 4, 4), GRU(9, 4, 4), AWDLSTM(9, 4, 4)], ids=lambda network: type(network).__name__
)
def test_networks_say_the_same_with_gradients_and_without(network):
    network.eval()
    tokens = torch.randint(9, (12, 3))
    expected = network(tokens)
    with torch.inference_mode():
        given = network(tokens)
    torch.testing.assert_close(given.hidden, expected.hidden.detach())
    torch.testing.assert_close(given.state, expected.state)


@pytest.mark.parametrize(
    "network",
    [RecurrentHighwayNetwork(9, 6, 6, 2), OrderedNeuronsLSTM(9, 6, 6, chunk_size=2)],
    ids=lambda network: type(network).__name__,
)
def test_gradients_of_long_sequences_in_single_precision(network):
    tokens, targets = torch.randint(9, (2, 30, 3))
    results = []
    for dtype in (torch.float32, torch.float64):
        network.to(dtype).eval()
        results.append(torch.autograd.grad(network.loss(network(tokens).hidden, targets), network.parameters()))
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_layers_run_in_float32_where_autocast_is_to_bfloat16(kind, monkeypatch):
    monkeypatch.setattr(torch_layers, "_DEVICE", "cpu")  # whose autocast can be had everywhere
    layers, x = kind(3, 4), torch.randn(5, 2, 3)
    expected, _ = layers(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = run_recurrent(layers, x.bfloat16().float(), None)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected, rtol=0.05, atol=0.05)
        low = torch.utils._pytree.tree_map(torch.Tensor.bfloat16, state)
        again, _ = run_recurrent(layers, x.bfloat16(), low)
        assert again.dtype == torch.float32


def test_layers_are_left_alone_without_autocast():
    layers, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    output, state = run_recurrent(layers, x, None)
    expected, ends = layers(x)
    assert torch.equal(output, expected)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(state, ends, strict=True))
