"""What holds for every network."""

from __future__ import annotations

import copy

import pytest
import torch
from plain_networks import PlainHighwayNetwork, PlainMoS, PlainOrderedNeuronsLSTM

from lightning_sparse_rnn.models import (
    AWDLSTM,
    GRU,
    LSTM,
    AWDLSTMMoS,
    OrderedNeuronsLSTM,
    RecurrentHighwayNetwork,
    StackedLSTM,
)
from lightning_sparse_rnn.models.kernels import rows as module
from lightning_sparse_rnn.models.kernels.state import map_state, state_batch_size

VOCAB = 13
NETWORKS = {
    "stacked": lambda: StackedLSTM(VOCAB, 4, 5),
    "lstm": lambda: LSTM(VOCAB, 4, 4, num_layers=1, tied=True),
    "gru": lambda: GRU(VOCAB, 4, 5),
    "highway": lambda: RecurrentHighwayNetwork(VOCAB, 4, 4, depth=3),
    "uncoupled": lambda: RecurrentHighwayNetwork(VOCAB, 4, 5, depth=2, coupled=False, tied=False),
    "ordered": lambda: OrderedNeuronsLSTM(VOCAB, 4, 6, chunk_size=2),
    "awd": lambda: AWDLSTM(VOCAB, 4, 6),
    "mixture": lambda: AWDLSTMMoS(VOCAB, 4, 6, last_size=5, experts=3),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]().double()


def token_by_token(network, tokens):
    state, log_probs = None, []
    for token in tokens:
        output = network(token[None], state)
        state = output.state
        log_probs.append(network.log_probs(output.hidden)[0])
    return torch.stack(log_probs), state


@pytest.mark.parametrize("logits", [1, 5 * VOCAB, 10_000])  # one row at a time, uneven parts, all rows at once
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_loss_of_evaluation_is_that_of_training(network, monkeypatch, logits, dtype):
    monkeypatch.setattr(module, "_LOGITS_AT_A_TIME", logits)
    network.to(dtype).eval()
    tokens, targets = torch.randint(VOCAB, (2, 7, 3))
    hidden = network(tokens).hidden.detach()
    expected = network.loss(hidden, targets).detach()
    with torch.no_grad():
        torch.testing.assert_close(network.loss(hidden, targets), expected)


@pytest.mark.parametrize("training", [True, False])
def test_in_bfloat16_a_loss_is_still_a_mean_in_single_precision(network, training):
    network.bfloat16()
    hidden = network(torch.randint(VOCAB, (2, 1))).hidden.detach()
    hidden, targets = torch.randn(200, 10, hidden.size(-1)).bfloat16(), torch.randint(VOCAB, (200, 10))
    with torch.set_grad_enabled(training):
        given = network.loss(hidden, targets)
        expected = copy.deepcopy(network).double().loss(hidden.double(), targets)
    assert given.dtype == torch.float32
    assert given.item() == pytest.approx(expected.item(), abs=0.002)  # between neighbours in bfloat16 are 0.016


def test_padding_counts_for_nothing(network, monkeypatch):
    monkeypatch.setattr(module, "_LOGITS_AT_A_TIME", 5 * VOCAB)
    tokens, targets = torch.randint(VOCAB, (2, 7, 3))
    targets[3:] = -100
    hidden = network.eval()(tokens).hidden.detach()
    expected = 3 * network.loss(hidden[:3], targets[:3])
    wanted = torch.autograd.grad(expected, network.decoder.parameters())
    loss = 3 * network.loss(hidden, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, network.decoder.parameters()), wanted)
    with torch.no_grad():
        torch.testing.assert_close(3 * network.loss(hidden, targets), expected)
    nothing = network.loss(hidden[3:], targets[3:])
    assert nothing.isnan()  # the mean of nothing, as of torch
    assert not any(grad.any() for grad in torch.autograd.grad(nothing, network.decoder.parameters()))
    with torch.no_grad():
        assert network.loss(hidden[3:], targets[3:]).isnan()


def test_targets_may_be_bytes_and_what_is_no_word_is_refused(network):
    hidden, targets = network.eval()(torch.randint(VOCAB, (5, 3))).hidden.detach(), torch.randint(VOCAB, (5, 3))
    for training in (True, False):
        with torch.set_grad_enabled(training):
            assert torch.equal(network.loss(hidden, targets.byte()), network.loss(hidden, targets))
            for target in (-1, VOCAB, 3 * VOCAB):
                with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
                    network.loss(hidden, torch.full((5, 3), target))


def test_a_decoder_that_is_hooked_or_replaced_is_called(network):
    tokens, targets = torch.randint(VOCAB, (2, 5, 3))
    hidden = network.eval()(tokens).hidden.detach()
    targets[0] = -100

    def found():
        losses = [network.loss(hidden, targets)]
        gradients = torch.autograd.grad(losses[0], [*network.decoder.parameters()])
        with torch.no_grad():
            losses.append(network.loss(hidden, targets))
            losses.append(-network.log_probs(hidden)[1:].gather(-1, targets[1:, :, None]).mean())
        torch.testing.assert_close(losses[1:], [losses[0].detach()] * 2)
        return losses[0].detach(), gradients

    alone, calls = found(), []
    hook = network.decoder.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(found(), alone)
    assert calls
    hook.remove()
    hook = network.decoder.register_forward_hook(lambda _, x, logits: 2 * logits)
    doubled = found()[0]
    assert (doubled - alone[0]).abs() > 1e-4
    hook.remove()
    torch.testing.assert_close(found(), alone)

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    network.decoder.__class__ = Doubled
    torch.testing.assert_close(found()[0], doubled)


def test_weights_may_be_given_pruned_or_parametrised(network):
    tokens = torch.randint(VOCAB, (5, 3))
    network.eval()
    doubled = {name: 2 * value.detach() for name, value in network.named_parameters()}
    given = torch.func.functional_call(network, doubled, (tokens,)).hidden
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(doubled[name])
    torch.testing.assert_close(given, network(tokens).hidden)
    owner, name = next(
        (layer, name)
        for layer in network.modules()
        for name, weight in layer.named_parameters(recurse=False)
        if "hh" in name and weight.dim() == 2
    )
    torch.nn.utils.prune.random_unstructured(owner, name, amount=0.5)
    assert not torch.equal(network(tokens).hidden, given)
    torch.nn.utils.prune.remove(owner, name)
    torch.nn.utils.parametrizations.spectral_norm(owner, name)
    assert network(tokens).hidden.shape == given.shape


@pytest.mark.parametrize("columns", [1, 20])
def test_evaluation_in_parts_equals_token_by_token(network, columns):
    network.eval()
    tokens = torch.randint(VOCAB, (12, columns))
    with torch.no_grad():
        expected, end = token_by_token(network, tokens[:-1])
        state, total = None, 0.0
        for start, stop in ((0, 1), (1, 6), (6, 11)):
            output = network(tokens[start:stop], state)
            state = output.state
            torch.testing.assert_close(network.log_probs(output.hidden), expected[start:stop])
            total += network.loss(output.hidden, tokens[start + 1 : stop + 1]) * (stop - start) * columns
    torch.testing.assert_close(state, end)
    loss = -expected.gather(-1, tokens[1:, :, None]).mean()
    torch.testing.assert_close(total / (11 * columns), loss)
    assert state_batch_size(state) == columns


def test_columns_do_not_see_each_other(network):
    network.eval()
    tokens = torch.randint(VOCAB, (6, 5))
    with torch.no_grad():
        together = network(tokens).hidden
        for column in range(5):
            torch.testing.assert_close(network(tokens[:, column : column + 1]).hidden, together[:, column : column + 1])


def test_gradient_stops_at_a_detached_state(network):
    tokens, targets = torch.randint(VOCAB, (2, 4, 3))
    state = map_state(torch.Tensor.detach, network(tokens).state)
    output = network(tokens, state)
    network.loss(output.hidden, targets).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_state_holds_nothing_but_itself(network):
    """A state that were a view of all outputs would keep them in memory, and in every checkpoint."""
    for mode in (True, False):
        network.train(mode)
        map_state(_own_storage, network(torch.randint(VOCAB, (9, 3))).state)


def _own_storage(part):
    assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
    return part


def test_copies_and_reloads(network):
    tokens = torch.randint(VOCAB, (4, 3))
    twin = copy.deepcopy(network)
    torch.manual_seed(1)
    expected = network(tokens).hidden
    torch.manual_seed(1)
    assert torch.equal(twin(tokens).hidden, expected)
    for weight in twin.parameters():
        weight.data.zero_()
    twin.load_state_dict(network.state_dict())
    torch.manual_seed(1)
    assert torch.equal(twin(tokens).hidden, expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
def test_compiled_training_step_equals_the_eager_one(network):
    tokens, targets = torch.randint(VOCAB, (2, 4, 3))
    twin = copy.deepcopy(network)
    losses = []
    for model, call in ((network, network), (twin, torch.compile(twin, backend="eager"))):
        torch.manual_seed(1)
        loss = model.loss(call(tokens).hidden, targets)
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(*losses)
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("fast", "plain"),
    [
        (RecurrentHighwayNetwork, PlainHighwayNetwork),
        (OrderedNeuronsLSTM, PlainOrderedNeuronsLSTM),
        (AWDLSTMMoS, PlainMoS),
    ],
)
def test_trains_as_its_reference(fast, plain):
    """Step by step: ten steps of SGD with carried state, every weight compared after each."""
    options = {"embedding_size": 4, "hidden_size": 4}
    if fast is not RecurrentHighwayNetwork:
        options["last_size"] = 4
    if fast is OrderedNeuronsLSTM:
        options["chunk_size"] = 2
    torch.manual_seed(0)
    ours = fast(VOCAB, **options).double()
    theirs = plain(VOCAB, **options).double()
    theirs.load_state_dict(ours.state_dict())
    text = torch.randint(VOCAB, (51, 3))
    states = [None, None]
    for step in range(10):
        tokens, targets = text[5 * step : 5 * step + 5], text[5 * step + 1 : 5 * step + 6]
        for index, network in enumerate((ours, theirs)):
            torch.manual_seed(step)
            output = network(tokens, states[index])
            states[index] = map_state(torch.Tensor.detach, output.state)
            network.zero_grad()
            network.loss(output.hidden, targets).backward()
            with torch.no_grad():
                for weight in network.parameters():
                    weight -= 2.0 * weight.grad
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("kind", "plain", "options"),
    [
        (RecurrentHighwayNetwork, PlainHighwayNetwork, {"hidden_size": 4, "depth": 3, "dropout_hidden": 0.25}),
        (OrderedNeuronsLSTM, PlainOrderedNeuronsLSTM, {"hidden_size": 6, "chunk_size": 2}),
        (AWDLSTMMoS, PlainMoS, {"hidden_size": 6, "last_size": 5, "experts": 3}),
    ],
)
def test_bfloat16_under_autocast(kind, plain, options):
    exact, mixed = (make(VOCAB, embedding_size=4, **options) for make in (plain, kind))
    mixed.load_state_dict(exact.state_dict())
    tokens, targets = torch.randint(VOCAB, (2, 6, 3))
    torch.manual_seed(5)
    loss = exact.loss(exact(tokens).hidden, targets)
    loss.backward()
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        output = mixed(tokens)
        low = mixed.loss(output.hidden, targets)
        again = mixed.loss(mixed(tokens, output.state).hidden, targets)
    low.backward()
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(loss.item(), rel=0.01)
    assert torch.isfinite(again)
    assert all(weight.grad.dtype == torch.float32 for weight in mixed.parameters())
    ours, theirs = (torch.cat([w.grad.flatten() for w in network.parameters()]) for network in (mixed, exact))
    assert (ours - theirs).norm() <= 0.02 * theirs.norm()


@pytest.mark.parametrize("name", ["highway", "ordered"])
def test_recurrences_of_our_own_carry_their_state_in_float32(name):
    with torch.autocast("cpu", torch.bfloat16):
        state = NETWORKS[name]()(torch.randint(VOCAB, (6, 3))).state
    cells = [state] if name == "highway" else [cell for _, cell in state]
    assert {cell.dtype for cell in cells} == {torch.float32}
