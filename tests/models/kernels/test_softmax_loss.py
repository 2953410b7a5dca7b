"""The loss of a softmax against torch's cross-entropy, and its derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint

from lightning_sparse_rnn.models import GRU
from lightning_sparse_rnn.models.kernels import softmax_loss as module
from lightning_sparse_rnn.models.kernels.softmax_loss import softmax_loss


@pytest.fixture(autouse=True, params=[0, 2**20])
def _many(request, monkeypatch):
    monkeypatch.setattr(module, "_MANY", request.param)


def by_torch(hidden, weight, bias, targets):
    return F.cross_entropy(F.linear(hidden, weight, bias), targets)


def inputs(rows=6, words=11, features=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    shapes = [(rows, features), (words, features), (words,)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def targets_of(given, rows=6, words=11):
    targets = torch.randint(words, (rows,), generator=torch.Generator().manual_seed(1))
    targets[:given] = -100
    return targets


@pytest.mark.parametrize("ignored", [0, 2, 6])
def test_loss_and_gradients_are_torchs(ignored):
    parts, targets = inputs(), targets_of(ignored)
    losses = [function(*parts, targets) for function in (softmax_loss, by_torch)]
    torch.testing.assert_close(*losses, equal_nan=True)
    for ours, theirs in zip(*(torch.autograd.grad(3 * loss, parts) for loss in losses), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.is_contiguous()


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_what_is_frozen_gets_no_gradient(frozen):
    parts = inputs()
    for place in frozen:
        parts[place].requires_grad_(False)
    softmax_loss(*parts, targets_of(0)).backward()
    assert [place for place, part in enumerate(parts) if part.grad is None] == list(frozen)


def test_a_second_pass_back_adds_the_same_again():
    parts = inputs()
    loss = softmax_loss(*parts, targets_of(0))
    loss.backward(retain_graph=True)
    once = [part.grad.clone() for part in parts]
    loss.backward()
    for part, of_one in zip(parts, once, strict=True):
        assert torch.equal(part.grad, 2 * of_one)


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_second_derivatives_are_torchs(frozen):
    results = []
    for function in (softmax_loss, by_torch):
        parts = inputs()
        if frozen is not None:
            parts[frozen].requires_grad_(False)
        wanted = [part for part in parts if part.requires_grad]
        first = torch.autograd.grad(function(*parts, targets_of(1)), wanted, create_graph=True)
        results.append(torch.autograd.grad(sum(part.pow(2).sum() for part in first), wanted))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_second_derivatives_of_a_tied_weight_count_each_way_once():
    tokens, targets, results = torch.arange(6), targets_of(2), []
    for function in (softmax_loss, by_torch):
        _, weight, bias = inputs()
        hidden = torch.tanh(F.embedding(tokens, weight))
        first = torch.autograd.grad(3 * function(hidden, weight, bias, targets), [weight, bias], create_graph=True)
        second = torch.autograd.grad(sum(part.pow(2).sum() for part in first), [weight, bias])
        results.append((*first, *second))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_targets_may_be_bytes_of_which_none_is_ignored():
    parts = inputs(words=160)
    targets = torch.tensor([156, 0, 159, 2, 3, 156])  # 156 and -100 are the same byte
    losses = [function(*parts, targets.to(torch.uint8)) for function in (softmax_loss, by_torch)]
    torch.testing.assert_close(*losses)
    network = GRU(vocab_size=160, embedding_size=5, hidden_size=5)
    with torch.no_grad():
        of_bytes, of_numbers = (network.loss(parts[0], each) for each in (targets.to(torch.uint8), targets))
    assert of_bytes == of_numbers
    for ours, theirs in zip(*(torch.autograd.grad(loss, parts) for loss in losses), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_in_the_pass_back_has_the_same_gradients(reentrant):
    results = []
    for function in (softmax_loss, lambda *given: checkpoint(softmax_loss, *given, use_reentrant=reentrant)):
        parts = inputs()
        function(*parts, targets_of(1)).backward()
        results.append([part.grad for part in parts])
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.parametrize("target", [11, -1])
def test_a_target_that_is_no_word_is_torchs_error(target):
    targets = targets_of(0)
    targets[3] = target
    with pytest.raises(IndexError, match=f"Target {target} is out of bounds"):
        softmax_loss(*inputs(), targets)


def test_logits_far_apart_do_not_overflow():
    hidden, weight, bias = inputs()
    loss = softmax_loss(1000 * hidden, weight, bias, targets_of(0))
    torch.testing.assert_close(loss, by_torch(1000 * hidden, weight, bias, targets_of(0)))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, (hidden, weight, bias)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_torchs(dtype):
    parts = [part.detach().to(dtype).requires_grad_() for part in inputs()]
    expected = F.cross_entropy(F.linear(*parts).to(torch.promote_types(dtype, torch.float32)), targets_of(1))
    assert torch.equal(softmax_loss(*parts, targets_of(1)), expected)


def test_autocast_rounds_the_products_alone():
    parts = inputs()
    with torch.autocast("cpu"):
        given = softmax_loss(*parts, targets_of(1))
        expected = F.cross_entropy(F.linear(*parts).float(), targets_of(1))
    assert given.dtype == torch.float32
    assert torch.equal(given, expected)


def test_a_decoder_that_is_looked_at_is_called():
    network = GRU(vocab_size=11, embedding_size=4, hidden_size=4)
    tokens, seen = torch.randint(11, (2, 3, 2)), []
    hidden = network(tokens[0]).hidden
    expected = network.loss(hidden, tokens[1])
    network.decoder.register_forward_hook(lambda *of_call: seen.append(of_call[2].shape))
    torch.testing.assert_close(network.loss(hidden, tokens[1]), expected)
    assert seen == [(6, 11)]


def test_a_decoder_whose_forward_is_patched_is_called():
    network = GRU(vocab_size=11, embedding_size=4, hidden_size=4)
    tokens = torch.randint(11, (2, 3, 2))
    hidden, plain = network(tokens[0]).hidden, network.decoder.forward
    network.decoder.forward = lambda x: 2 * plain(x)
    expected = F.cross_entropy(2 * plain(hidden.flatten(0, 1)), tokens[1].flatten())
    torch.testing.assert_close(network.loss(hidden, tokens[1]), expected)


def test_what_is_compiled_is_not_bound_to_a_number_of_rows():
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(softmax_loss, backend=counter, dynamic=True, fullgraph=True)
    for rows in (4, 6, 2**17):  # with 11 words the last are many
        given = inputs(rows)
        targets = targets_of(1, rows)
        torch.testing.assert_close(compiled(*given, targets), by_torch(*given, targets))
    assert counter.frame_count == 1


def test_a_pruned_decoder_counts_as_pruned():
    network = GRU(vocab_size=11, embedding_size=4, hidden_size=4)
    tokens = torch.randint(11, (2, 3, 2))
    hidden = network(tokens[0]).hidden
    torch.nn.utils.prune.random_unstructured(network.decoder, "weight", amount=0.5)
    expected = by_torch(hidden.flatten(0, 1), network.decoder.weight, network.decoder.bias, tokens[1].flatten())
    torch.testing.assert_close(network.loss(hidden, tokens[1]), expected)
