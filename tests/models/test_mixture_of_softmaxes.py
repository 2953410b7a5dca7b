"""The mixture of softmaxes against all its probabilities."""

from __future__ import annotations

import pytest
import torch
from plain_networks import PlainMoS

from lightning_sparse_rnn.models import AWDLSTMMoS
from lightning_sparse_rnn.models.kernels import mixture_loss as module
from lightning_sparse_rnn.models.kernels import rows as rows
from lightning_sparse_rnn.models.kernels.mixture_loss import mixture_loss

VOCAB = 11


def make(kind=AWDLSTMMoS, **options):
    return kind(VOCAB, **{"embedding_size": 4, "hidden_size": 6, "last_size": 5, "experts": 3, **options})


def test_weights_of_the_recipe():
    with torch.device("meta"):
        network = AWDLSTMMoS(33_278)
    assert sum(weight.numel() for weight in network.parameters()) == 34_909_528


# One row at a time, uneven parts, all rows at once.
@pytest.fixture(params=[1, 4 * 3 * VOCAB, 10_000])
def _logits_at_a_time(request, monkeypatch):
    monkeypatch.setattr(rows, "_LOGITS_AT_A_TIME", request.param)


@pytest.mark.usefixtures("_logits_at_a_time")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"experts": 1}, {"tied": False}])
def test_equals_all_probabilities(options, training):
    fast, plain = make(**options).double(), make(PlainMoS, **options).double()
    plain.load_state_dict(fast.state_dict())
    tokens, targets = torch.randint(VOCAB, (2, 5, 3))
    results = []
    for network in (fast, plain):
        network.train(training)
        torch.manual_seed(5)
        loss = 3 * network.loss(network(tokens).hidden, targets)
        grads = torch.autograd.grad(loss, network.parameters())
        results.append([loss, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("_logits_at_a_time")
@pytest.mark.parametrize("ignored", [0, 3])
def test_gradients(ignored):
    shapes = [(7, 3, 4), (7, 3), (VOCAB, 4), (VOCAB,)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    targets = torch.randint(VOCAB, (7,))
    targets[:ignored] = -100
    assert torch.autograd.gradcheck(lambda *inputs: mixture_loss(*inputs, targets), inputs)


@pytest.mark.parametrize("of_some", [module._in_blocks, module._in_rows])
@pytest.mark.parametrize("block", [(1, 1), (4, 3), (1_000, 1_000)])
def test_evaluation_equals_all_probabilities(monkeypatch, block, of_some):
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_in_blocks", of_some)  # a GPU takes whole rows
    network = make().double().eval()
    tokens, targets = torch.randint(VOCAB, (2, 5, 3))
    with torch.no_grad():
        hidden = network(tokens).hidden
        expected = -network.log_probs(hidden).gather(-1, targets[..., None]).mean()
        torch.testing.assert_close(network.loss(hidden, targets), expected)


def test_second_derivatives_are_refused():
    network = make()
    tokens, targets = torch.randint(VOCAB, (2, 5, 3))
    loss = network.loss(network(tokens).hidden, targets)
    with pytest.raises(RuntimeError, match="has no second derivatives"):
        torch.autograd.grad(loss, network.parameters(), create_graph=True)


def test_rounded_products_give_no_probability_above_one():
    latent, log_prior = torch.randn(200, 3, 8), torch.log_softmax(torch.randn(200, 3), -1)
    weight, bias = 9 * torch.randn(VOCAB, 8), torch.zeros(VOCAB)
    likeliest = (latent @ weight.t()).sum(1).argmax(-1)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        rows = zip(latent.split(1), log_prior.split(1), likeliest.split(1), strict=True)
        losses = torch.stack([mixture_loss(one, prior, weight, bias, target) for one, prior, target in rows])
    assert losses.min() >= -1e-6


def test_gradients_of_many_words_survive_float16():
    rows, words = 500, 20_000
    latent, log_prior = torch.randn(rows, 3, 8), torch.log_softmax(torch.randn(rows, 3), -1)
    weight, bias = 0.1 * torch.randn(words, 8), torch.zeros(words)
    targets = torch.randint(words, (rows,))
    found = []
    for enabled in (False, True):
        inputs = [part.clone().requires_grad_() for part in (latent, log_prior, weight, bias)]
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            loss = mixture_loss(*inputs, targets)
        found.append(torch.autograd.grad(2.0**16 * loss, inputs))
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).norm() < 0.005 * exact.norm()


def test_log_probs_sum_to_one_and_agree_with_the_loss():
    network = make().double().eval()
    plain = make(PlainMoS).double().eval()
    plain.load_state_dict(network.state_dict())
    tokens, targets = torch.randint(VOCAB, (2, 5, 3))
    with torch.no_grad():
        hidden = network(tokens).hidden
        log_probs = network.log_probs(hidden)
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(5, 3, dtype=torch.float64))
        torch.testing.assert_close(log_probs, plain.log_probs(hidden))
        expected = -log_probs.gather(-1, targets[..., None]).mean()
        torch.testing.assert_close(network.loss(hidden, targets), expected)
        torch.testing.assert_close(network.log_probs(hidden[-1]), log_probs[-1])


def test_logits_far_apart_do_not_overflow():
    latent = torch.full((2, 2, 1), 1.0)
    weight = torch.tensor([[1000.0], [-1000.0]])
    log_prior = torch.tensor([0.25, 0.75]).log().expand(2, 2)
    for training in (True, False):
        weight.requires_grad_(training)
        with torch.set_grad_enabled(training):
            loss = mixture_loss(latent, log_prior, weight, torch.zeros(2), torch.tensor([0, 1]))
        assert loss.item() == pytest.approx(1000.0)


def test_latent_mask_holds_for_the_sequence():
    network = make(embedding_size=50, dropout_latent=0.29)
    hidden = torch.randn(1, 20, 5).expand(6, -1, -1)
    latent, _ = network._experts(hidden)
    assert latent.shape == (6, 20, 3, 50)
    assert torch.equal(latent, latent[:1].expand_as(latent))
    assert (latent == 0).float().mean().item() == pytest.approx(0.29, abs=0.04)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, "Expected `experts` to be a whole number of at least 1, got 0"),
        ({"dropout_latent": 1.0}, r"Expected `dropout_latent` in \[0, 1\), got 1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
