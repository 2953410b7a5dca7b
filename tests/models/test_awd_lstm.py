"""The AWD-LSTM, its weight drop and the dropouts it shares with its descendants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_sparse_rnn.models import AWDLSTM
from lightning_sparse_rnn.models.awd_lstm import WeightDropLSTM
from lightning_sparse_rnn.models.dropout import embed, locked_dropout
from lightning_sparse_rnn.sparsity.gates import find_gates

VOCAB = 11


def make(**options):
    return AWDLSTM(VOCAB, **{"embedding_size": 4, "hidden_size": 6, **options})


def test_weights_of_the_recipe():
    with torch.device("meta"):
        network = AWDLSTM(10_000)
    assert sum(weight.numel() for weight in network.parameters()) == 24_221_600


def test_layers_one_by_one_with_each_dropout_in_its_place():
    network = make(dropout_embedding=0.3, dropout_input=0.4, dropout_between=0.2, dropout_output=0.5, weight_drop=0.6)
    tokens = torch.randint(VOCAB, (5, 3))
    plains = [nn.LSTM(layer.input_size, layer.hidden_size) for layer in network.layers]
    torch.manual_seed(5)
    hidden, raw, _ = network(tokens)
    torch.manual_seed(5)
    x = embed(network.embedding, tokens, 0.3, True)
    for layer, plain, dropout in zip(network.layers, plains, (0.4, 0.2, 0.2), strict=True):
        x = locked_dropout(x, dropout, True)
        plain.load_state_dict(layer.state_dict())
        with torch.no_grad():
            plain.weight_hh_l0.copy_(F.dropout(layer.weight_hh_l0, 0.6))
        x, _ = plain(x)
    torch.testing.assert_close(raw, x)
    torch.testing.assert_close(hidden, locked_dropout(x, 0.5, True))


class TestWeightDrop:
    def test_drops_weights_of_the_hidden_matrix_only(self):
        layer, x = WeightDropLSTM(3, 40, 0.5).double(), torch.randn(4, 2, 3, dtype=torch.float64)
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            lstm = torch.lstm
            patch.setattr(torch, "lstm", lambda *args: seen.append(args[2]) or lstm(*args))
            layer(x)
            layer(x)
        (w_x, first, b_x, b_h), (_, second, *_) = seen
        assert w_x is layer.weight_ih_l0
        assert b_x is layer.bias_ih_l0
        assert b_h is layer.bias_hh_l0
        assert (first == 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
        assert not torch.equal(first == 0, second == 0)
        kept = first != 0
        torch.testing.assert_close(first[kept], 2 * layer.weight_hh_l0[kept])

    def test_gradient_goes_to_the_kept_weights(self):
        layer, plain = WeightDropLSTM(3, 4, 0.5).double(), nn.LSTM(3, 4).double()
        plain.load_state_dict(layer.state_dict())
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        state = tuple(torch.randn(1, 2, 4, dtype=torch.float64) for _ in range(2))
        torch.manual_seed(5)
        output, (_, c) = layer(x, state)
        (output.sum() + c.exp().sum()).backward()
        torch.manual_seed(5)
        dropped = F.dropout(plain.weight_hh_l0.detach(), 0.5)
        scale = 2.0 * (dropped != 0)
        plain.weight_hh_l0.data.copy_(dropped)
        output, (_, c) = plain(x, state)
        (output.sum() + c.exp().sum()).backward()
        torch.testing.assert_close(layer.weight_hh_l0.grad, plain.weight_hh_l0.grad * scale)
        torch.testing.assert_close(layer.weight_ih_l0.grad, plain.weight_ih_l0.grad)

    def test_state_dict_is_that_of_an_lstm(self):
        layer = WeightDropLSTM(3, 4, 0.5)
        before = {name: weight.clone() for name, weight in layer.state_dict().items()}
        assert set(before) == set(nn.LSTM(3, 4).state_dict())
        layer(torch.randn(5, 2, 3))
        assert all(torch.equal(before[name], weight) for name, weight in layer.state_dict().items())

    def test_evaluation_uses_all_weights(self):
        layer, plain, x = WeightDropLSTM(3, 4, 0.5).eval(), nn.LSTM(3, 4), torch.randn(5, 2, 3)
        plain.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(x)[0], plain(x)[0])

    def test_gates_are_those_of_an_lstm(self):
        layouts = find_gates(make())
        assert layouts["layers.0.weight_hh_l0"].rows == dict.fromkeys(("input", "forget", "cell", "output"), 6)
        assert len(layouts) == 6


class TestDropout:
    def test_locked_masks_hold_for_the_sequence(self):
        x = torch.ones(7, 20, 50)
        dropped = locked_dropout(x, 0.3, True)
        assert torch.equal(dropped, dropped[:1].expand_as(dropped))
        assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
        assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
        assert not torch.equal(dropped[0, 0], dropped[0, 1])
        assert not torch.equal(locked_dropout(x, 0.3, True), dropped)
        assert locked_dropout(x, 0.3, False) is x
        assert locked_dropout(x, 0.0, True) is x

    def test_embedding_drops_words_wherever_they_stand(self):
        embedding = nn.Embedding(500, 3)
        tokens = torch.randint(500, (40, 50))
        ratio = embed(embedding, tokens, 0.2, True) / embedding(tokens)
        factor = ratio[..., 0]
        torch.testing.assert_close(ratio, factor[..., None].expand_as(ratio))
        words = torch.full((500,), -1.0)
        words[tokens] = factor
        torch.testing.assert_close(words[tokens], factor)
        seen = words[words >= 0]
        assert (seen == 0).float().mean().item() == pytest.approx(0.2, abs=0.06)
        torch.testing.assert_close(seen[seen > 0], torch.full_like(seen[seen > 0], 1.25))
        assert torch.equal(embed(embedding, tokens, 0.2, False), embedding(tokens))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last_size": 5}, "Expected embedding and decoder of one size to tie them, got 4 and 5"),
        ({"last_size": 0}, "Expected `last_size` to be a whole number of at least 1, got 0"),
        ({"dropout_between": -0.1}, r"Expected `dropout_between` in \[0, 1\), got -0.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
