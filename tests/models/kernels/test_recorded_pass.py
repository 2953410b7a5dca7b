"""Recorded passes: their memory, their random numbers, and what makes another recording necessary."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning_runs import language_model
from recorded_runs import run_pass, tokens_and_targets
from tape import Stand

from lightning_sparse_rnn.models.kernels import recorded_pass


def test_draw_dropout_anew_as_torch_would(stand: Stand) -> None:
    model = language_model()
    drawn = [run_pass(model).loss.item() for _ in range(3)]
    assert len(set(drawn)) == 3
    torch.manual_seed(7)
    found = [run_pass(model).loss for _ in range(3)]
    torch.manual_seed(7)
    expected = [model._train_on(*tokens_and_targets(), None).loss for _ in range(3)]
    assert found == expected
    assert stand.recordings == 2


def test_gradients_are_where_they_were_and_no_copies(stand: Stand) -> None:
    model = language_model()
    places = []
    for seed, steps in enumerate([5, 5, 3, 5]):
        model.zero_grad()
        run_pass(model, steps, seed).objective.backward()
        places.append([parameter.grad.data_ptr() for parameter in model.parameters()])
        memory = {parameter.grad.untyped_storage().data_ptr() for parameter in model.parameters()}
        assert len(memory) == len(places[0])
    assert all(place == places[0] for place in places)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_add_up_in_what_there_is(stand: Stand, set_to_none: bool) -> None:
    model = language_model()
    for begin in (lambda: None, lambda: model.zero_grad(set_to_none), lambda: model.zero_grad(set_to_none)):
        begin()
        torch.manual_seed(1)
        start = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        for seed in range(3):
            (run_pass(model, seed=seed).objective / 3).backward()
        found = [p.grad.clone() for p in model.parameters()]
        twin = copy.deepcopy(model)
        for parameter, old in zip(twin.parameters(), start, strict=True):
            parameter.grad = old
        torch.manual_seed(1)
        for seed in range(3):
            (twin._train_on(*tokens_and_targets(seed=seed), None).objective / 3).backward()
        for ours, theirs in zip(found, twin.parameters(), strict=True):
            assert torch.equal(ours, theirs.grad)
    own = torch.ones_like(model.network.decoder.bias)
    model.zero_grad()
    model.network.decoder.bias.grad = own
    run_pass(model).objective.backward()
    assert model.network.decoder.bias.grad is own
    assert own.sum().item() == pytest.approx(22.0, abs=1e-5)  # a softmax's gradients add up to nothing


def test_results_are_the_callers_own(stand: Stand) -> None:
    model = language_model()
    first = run_pass(model)
    kept = [part.clone() for part in (first.objective, first.loss, *first.state)]
    run_pass(model, seed=1, state=first.state)
    for ours, theirs in zip((first.objective, first.loss, *first.state), kept, strict=True):
        assert torch.equal(ours, theirs)
    assert not any(part.requires_grad for part in (first.loss, *first.state))


def test_only_the_latest_objective_can_be_differentiated_and_once(stand: Stand) -> None:
    model = language_model()
    first, second = run_pass(model), run_pass(model)
    with pytest.raises(RuntimeError, match=r"latest training step, once.*`cuda_graphs=False`"):
        first.objective.backward()
    second.objective.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="latest training step, once"):
        second.objective.backward()


def test_a_frozen_parameter_gets_no_gradient(stand: Stand) -> None:
    model = language_model()
    model.network.embedding.weight.requires_grad_(False)
    run_pass(model).objective.backward()
    assert model.network.embedding.weight.grad is None
    model.network.embedding.weight.requires_grad_(True)
    run_pass(model).objective.backward()
    assert model.network.embedding.weight.grad is not None


@pytest.mark.parametrize("change", ["dropout", "mode", "precision", "place"])
def test_what_a_pass_is_made_of_is_heeded(stand: Stand, change: str) -> None:
    model = language_model()
    run_pass(model)
    if change == "dropout":
        model.network.dropout.p = 0.9
    elif change == "mode":
        model.eval()
    elif change == "precision":
        torch.set_float32_matmul_precision("medium")
    else:
        model.double().float()
    before = stand.recordings
    try:
        torch.manual_seed(3)
        found = run_pass(model)
        torch.manual_seed(3)
        assert torch.equal(found.loss, model._train_on(*tokens_and_targets(), None).loss)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert stand.recordings == before + 2


def test_of_too_many_the_one_used_longest_ago_goes(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_pass, "_MOST_RECORDINGS", 2)
    model = language_model()
    made = []
    for steps in (2, 3, 2, 4, 2, 3):  # 4 takes the place of 3
        before = stand.recordings
        run_pass(model, steps)
        made.append((stand.recordings - before) // 2)
    assert made == [1, 1, 0, 1, 0, 1]
