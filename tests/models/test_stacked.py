"""The stacked LSTM."""

from __future__ import annotations

import pytest
import torch

from lightning_sparse_rnn.models import GRU, StackedLSTM


def test_weights_of_the_recipe():
    with torch.device("meta"):
        network = StackedLSTM(10_000)
    assert sum(weight.numel() for weight in network.parameters()) == 66_034_000


def test_initialisation():
    network = StackedLSTM(200, 40, 25)
    for weight in (network.embedding.weight, network.decoder.weight):
        assert weight.abs().max() <= 0.1
        assert weight.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert torch.equal(network.decoder.bias, torch.zeros(200))
    assert all(weight.abs().max() <= 25**-0.5 for weight in network.layers.parameters())


def test_layers_one_by_one():
    network = StackedLSTM(9, 4, 3).eval().double()
    tokens = torch.randint(9, (5, 2))
    state = tuple(torch.randn(2, 2, 3, dtype=torch.float64) for _ in range(2))
    hidden, raw, (h, c) = network(tokens, state)
    value, ends = network.embedding(tokens), []
    for layer in range(2):
        w_x, w_h, b_x, b_h = (
            getattr(network.layers, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h_t, c_t, outputs = state[0][layer], state[1][layer], []
        for x in value:
            i, f, g, o = (x @ w_x.T + b_x + h_t @ w_h.T + b_h).chunk(4, dim=-1)
            c_t = f.sigmoid() * c_t + i.sigmoid() * g.tanh()
            h_t = o.sigmoid() * c_t.tanh()
            outputs.append(h_t)
        value = torch.stack(outputs)
        ends.append((h_t, c_t))
    torch.testing.assert_close(raw, value)
    torch.testing.assert_close(hidden, value)
    torch.testing.assert_close(h, torch.stack([end[0] for end in ends]))
    torch.testing.assert_close(c, torch.stack([end[1] for end in ends]))
    logits = hidden @ network.decoder.weight.T + network.decoder.bias
    torch.testing.assert_close(network.log_probs(hidden), logits.log_softmax(-1))
    targets = torch.randint(9, (5, 2))
    expected = -network.log_probs(hidden).gather(-1, targets[..., None]).mean()
    torch.testing.assert_close(network.loss(hidden, targets), expected)


def test_dropout_before_between_and_after_the_layers():
    network = StackedLSTM(9, 400, 400, dropout=0.3)
    assert network.layers.dropout == 0.3
    hidden, raw, _ = network(torch.randint(9, (20, 5)))
    assert ((hidden == 0) != (raw == 0)).float().mean().item() == pytest.approx(0.3, abs=0.02)
    kept = hidden != 0
    torch.testing.assert_close(hidden[kept], raw[kept] / 0.7)
    seen = []
    network.layers.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(torch.randint(9, (20, 5)))
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_each_place_can_have_a_dropout_of_its_own():
    options = {"dropout_input": 0.6, "dropout_between": 0.1, "dropout_output": 0.8}
    network = StackedLSTM(9, 400, 400, dropout=0.3, **options)
    assert network.layers.dropout == 0.1
    read = []
    network.layers.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    hidden, raw, _ = network(torch.randint(9, (20, 5)))
    assert (read[0] == 0).float().mean().item() == pytest.approx(0.6, abs=0.02)
    assert (hidden == 0).float().mean().item() == pytest.approx(0.8, abs=0.02)
    torch.testing.assert_close(hidden[hidden != 0], raw[hidden != 0] / 0.2)


def test_a_place_without_a_dropout_of_its_own_has_the_one_of_all():
    torch.manual_seed(0)
    one = GRU(9, 6, 6, dropout=0.3)
    torch.manual_seed(0)
    other = GRU(9, 6, 6, dropout=0.5, dropout_input=0.3, dropout_between=0.3, dropout_output=0.3)
    assert GRU(9, 6, 6, dropout=0.5, dropout_between=0.3).dropout_output.p == 0.5
    tokens = torch.randint(9, (5, 2))
    found = []
    for network in (one, other):
        torch.manual_seed(1)
        found.append(network(tokens).hidden)
    assert torch.equal(*found)
    one.dropout.p = 0.0  # which then holds for both places that the module is at
    assert one.dropout_output.p == 0.0


def test_tied():
    network = StackedLSTM(9, 4, 4, tied=True)
    assert network.decoder.weight is network.embedding.weight
    assert len(list(network.parameters())) == 1 + 8 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 3, "tied": True}, "Expected embedding and decoder of one size to tie them, got 4 and 3"),
        ({"num_layers": 0}, "Expected `num_layers` to be a whole number of at least 1, got 0"),
        ({"dropout": 1.0}, r"Expected `dropout` in \[0, 1\), got 1.0"),
        ({"dropout_output": 1.5}, r"Expected `dropout_output` in \[0, 1\), got 1.5"),
        ({"dropout": 65}, r"Expected `dropout` in \[0, 1\), got 65. Did you mean 0.65\?"),
        ({"vocab_size": 0}, "Expected `vocab_size` to be a whole number of at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        StackedLSTM(**{"vocab_size": 9, "embedding_size": 4, "hidden_size": 4, **options})


def test_one_layer_has_no_dropout_between_layers():
    assert StackedLSTM(9, 4, 4, num_layers=1).layers.dropout == 0.0


def test_gru_layers_one_by_one():
    network = GRU(9, 4, 3).eval().double()
    tokens = torch.randint(9, (5, 2))
    start = torch.randn(2, 2, 3, dtype=torch.float64)
    hidden, _, state = network(tokens, start)
    value, ends = network.embedding(tokens), []
    for layer in range(2):
        w_x, w_h, b_x, b_h = (
            getattr(network.layers, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, outputs = start[layer], []
        for x in value:
            (r_x, z_x, n_x), (r_h, z_h, n_h) = (x @ w_x.T + b_x).chunk(3, -1), (h @ w_h.T + b_h).chunk(3, -1)
            r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
            h = (1 - z) * torch.tanh(n_x + r * n_h) + z * h
            outputs.append(h)
        value = torch.stack(outputs)
        ends.append(h)
    torch.testing.assert_close(hidden, value)
    torch.testing.assert_close(state, torch.stack(ends))
