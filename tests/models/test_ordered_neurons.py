"""The ordered-neurons LSTM against one cell at a time."""

from __future__ import annotations

import pytest
import torch
from plain_networks import PlainOrderedNeuronsLSTM

from lightning_sparse_rnn.models import OrderedNeuronsLSTM
from lightning_sparse_rnn.models.kernels.ordered_recurrence import ordered_recurrence
from lightning_sparse_rnn.models.ordered_neurons import OrderedNeuronsLayer
from lightning_sparse_rnn.sparsity.gates import find_gates

VOCAB = 11


def make(kind=OrderedNeuronsLSTM, **options):
    return kind(VOCAB, **{"embedding_size": 4, "hidden_size": 6, "num_layers": 3, "chunk_size": 2, **options})


def test_weights_of_the_recipe():
    with torch.device("meta"):
        network = OrderedNeuronsLSTM(10_000)
    assert sum(weight.numel() for weight in network.parameters()) == 25_232_180
    assert [layer.hidden_size for layer in network.layers] == [1150, 1150, 400]


def test_initialisation_is_that_of_an_lstm():
    for weight in OrderedNeuronsLayer(100, 25, 5).parameters():
        assert 0.18 < weight.abs().max() <= 0.2


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"tied": False, "num_layers": 1}, {"weight_drop": 0.0, "chunk_size": 1}])
def test_equals_one_cell_at_a_time(options, training, steps):
    fast, plain = make(**options).double(), make(PlainOrderedNeuronsLSTM, **options).double()
    plain.load_state_dict(fast.state_dict())
    tokens, targets = torch.randint(VOCAB, (2, steps, 3))
    results = []
    for network in (fast, plain):
        network.train(training)
        torch.manual_seed(5)
        start = tuple(
            tuple(torch.randn(3, layer.hidden_size, dtype=torch.float64, requires_grad=True) for _ in range(2))
            for layer in network.layers
        )
        flat_start = [part for pair in start for part in pair]
        hidden, raw, state = network(tokens, start)
        flat_state = [part for pair in state for part in pair]
        loss = network.loss(hidden, targets) + raw.pow(2).sum() + sum(part.exp().sum() for part in flat_state)
        grads = torch.autograd.grad(loss, [*flat_start, *network.parameters()])
        results.append([hidden, raw, *flat_state, loss, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("chunks", [1, 2, 4])
@pytest.mark.parametrize("which", [0, 1, None])
def test_gradients(chunks, which):
    shapes = [(3, 2, 2 * chunks + 16), (2, 4), (2, 4), (2 * chunks + 16, 4)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def function(*inputs):
        results = ordered_recurrence(*inputs, chunks)
        return results if which is None else results[which]

    assert torch.autograd.gradcheck(function, inputs)


def test_master_gates_by_hand():
    # One column, two chunks of one neuron; the hidden weight and all but the master gates' inputs are zero, so that
    # every σ is 1/2 and c₀ only changes through the master gates.
    master = torch.tensor([0.0, 2.0, 1.0, -1.0], dtype=torch.float64)
    inputs = torch.cat((master, torch.zeros(8, dtype=torch.float64))).view(1, 1, 12)
    c = torch.tensor([[3.0, 5.0]], dtype=torch.float64)
    outputs, cell = ordered_recurrence(inputs, torch.zeros_like(c), c, torch.zeros(12, 2, dtype=torch.float64), 2)
    first_in, first_forget = torch.softmax(master[:2], 0)[0], torch.softmax(master[2:], 0)[0]
    # ĩ = (1 − p, 0), f̃ = (q, 1), ω = f̃·ĩ; c ← (ω/2 + f̃ − ω)·c
    overlap = torch.stack((first_forget * (1 - first_in), torch.zeros_like(first_in)))
    expected = (torch.stack((first_forget, torch.ones_like(first_forget))) - overlap / 2) * c
    torch.testing.assert_close(cell, expected)
    torch.testing.assert_close(outputs[0], 0.5 * torch.tanh(expected))


def test_evaluation_keeps_nothing_and_says_the_same():
    network = make().eval()
    tokens = torch.randint(VOCAB, (6, 3))
    expected = network(tokens)
    with torch.inference_mode():
        given = network(tokens)
    torch.testing.assert_close(given.hidden, expected.hidden)
    torch.testing.assert_close(given.state, expected.state)


def test_gates_are_declared():
    network = make(hidden_size=6, chunk_size=2)
    layouts = find_gates(network)
    assert set(layouts) == {f"layers.{i}.weight_{kind}" for i in range(3) for kind in ("ih", "hh")}
    expected = {"master_input": 3, "master_forget": 3, "output": 6, "cell": 6, "input": 6, "forget": 6}
    assert layouts["layers.0.weight_hh"].rows == expected
    assert list(layouts["layers.0.weight_hh"].rows) == list(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 4}, "Expected layers of a multiple of `chunk_size` neurons, got 6 neurons in chunks of 4"),
        ({"chunk_size": 0}, "Expected `chunk_size` to be a whole number of at least 1, got 0"),
        ({"chunk_size": 3}, "got 4 neurons in chunks of 3"),
        ({"last_size": 6}, "Expected embedding and decoder of one size to tie them, got 4 and 6"),
        ({"num_layers": 0}, "Expected `num_layers` to be a whole number of at least 1, got 0"),
        ({"weight_drop": 1.0}, r"Expected `weight_drop` in \[0, 1\), got 1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
