"""The recurrent highway network against one cell at a time."""

from __future__ import annotations

import pytest
import torch
from plain_networks import PlainHighwayNetwork

from lightning_sparse_rnn.models import RecurrentHighwayNetwork
from lightning_sparse_rnn.models.highway import HighwayLayer
from lightning_sparse_rnn.models.kernels.highway_recurrence import highway_recurrence
from lightning_sparse_rnn.sparsity.gates import find_gates

VOCAB = 11


def make(kind=RecurrentHighwayNetwork, **options):
    return kind(VOCAB, **{"embedding_size": 5, "hidden_size": 5, "depth": 3, **options})


def test_weights_of_the_recipe():
    with torch.device("meta"):
        network = RecurrentHighwayNetwork(10_000)
    assert sum(weight.numel() for weight in network.parameters()) == 23_482_400


def test_initialisation_is_that_of_linear_layers():
    layer = HighwayLayer(100, 25, 4, coupled=True, dropout=0.0)
    for name, weight in layer.named_parameters():
        bound = 0.1 if name == "weight_ih" else 0.2
        assert 0.9 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"coupled": False}, {"tied": False, "embedding_size": 4}, {"depth": 1}, {"dropout_hidden": 0.0}]
)
def test_equals_one_cell_at_a_time(options, training, steps):
    fast, plain = make(**options).double(), make(PlainHighwayNetwork, **options).double()
    plain.load_state_dict(fast.state_dict())
    tokens, targets = torch.randint(VOCAB, (2, steps, 3))
    results = []
    for network in (fast, plain):
        network.train(training)
        torch.manual_seed(5)
        start = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
        hidden, raw, state = network(tokens, start)
        loss = network.loss(hidden, targets) + raw.pow(2).sum() + state.exp().sum()
        grads = torch.autograd.grad(loss, [start, *network.parameters()])
        results.append([hidden, raw, state, loss, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("gates", [2, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_gradients(gates, masked):
    shapes = [(3, 2, gates * 4), (2, 4), *[(gates * 4, 4)] * 2, (gates * 4,)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.tensor([2.0, 0.0, 1.0, 3.0], dtype=torch.float64).expand(2, 4) if masked else None
    assert torch.autograd.gradcheck(lambda x, s, a, b, bias: highway_recurrence(x, s, [a, b], [bias], mask), inputs)


@pytest.mark.parametrize("options", [{}, {"coupled": False}])
def test_evaluation_keeps_nothing_and_says_the_same(options):
    network = make(**options).eval()
    tokens = torch.randint(VOCAB, (6, 3))
    expected = network(tokens)
    with torch.inference_mode():
        given = network(tokens)
    torch.testing.assert_close(given.hidden, expected.hidden)
    torch.testing.assert_close(given.state, expected.state)


def test_one_hidden_mask_for_a_sequence_on_the_way_to_the_gates():
    layer = HighwayLayer(1, 1000, 2, coupled=True, dropout=0.25)
    seen = []

    def record(inputs, state, weights, biases, mask):
        seen.append(mask)
        return highway_recurrence(inputs, state, weights, biases, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_sparse_rnn.models.highway.highway_recurrence", record)
        x = torch.randn(4, 6, 1)
        layer(x)
        layer(x)
        layer.eval()(x)
    first, second, none = seen
    assert first.shape == (6, 1000)
    assert none is None
    assert not torch.equal(first, second)
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert first.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]


def test_gates_are_declared():
    for coupled, gates in ((True, ["hidden", "transform"]), (False, ["hidden", "transform", "carry"])):
        network = make(coupled=coupled)
        layouts = find_gates(network)
        assert set(layouts) == {name for name, weight in network.layer.named_parameters("layer") if weight.dim() == 2}
        assert all(layout.rows == dict.fromkeys(gates, 5) for layout in layouts.values())
        assert {layout.layer for layout in layouts.values()} == {"layer"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "Expected `depth` to be a whole number of at least 1, got 0"),
        ({"hidden_size": 6}, "Expected embedding and decoder of one size to tie them, got 5 and 6"),
        ({"dropout_hidden": 1.5}, r"Expected `dropout_hidden` in \[0, 1\), got 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
