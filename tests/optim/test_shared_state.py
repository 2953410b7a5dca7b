"""An optimizer saved, copied and wrapped."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snt_asgd_runs import SCOPES, STEPS, Run, averaging_run, comparable
from torch import Tensor


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def resumed(run: Run, scope: str, **options: Any) -> Run:
    """A run that knows of ``run`` only what a checkpoint holds: w, the topology, the optimizer and the noise."""
    model = {
        name: run.optimizer.training(p) if run.optimizer.averaging else p
        for name, p in run.model.state_dict(keep_vars=True).items()
    }
    saved = through_a_file(
        {
            "model": {name: tensor.detach() for name, tensor in model.items()},
            "optimizer": run.optimizer.state_dict(),
            "topology": run.topology.state_dict(),
            "noise": run.noise.get_state(),
        }
    )
    other = Run(dtype=run.model.late.dtype, seed=99, scope=scope, **options)
    if len(run.optimizer.param_groups) == 3:
        other.optimizer.add_param_group({"params": [other.model.late]})
    other.model.load_state_dict(saved["model"])
    other.topology.load_state_dict(saved["topology"])
    other.optimizer.load_state_dict(saved["optimizer"])
    other.noise.set_state(saved["noise"])
    return other


def equal_runs(one: Run, other: Run) -> bool:
    return all(
        torch.equal(one.optimizer.training(p), other.optimizer.training(q))
        and torch.equal(one.optimizer.averaged(p), other.optimizer.averaged(q))
        for p, q in zip(one.parameters(), other.parameters(), strict=True)
    ) and (one.optimizer.history, one.optimizer.averaging) == (other.optimizer.history, other.optimizer.averaging)


DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64])


resumable = st.lists(
    st.sampled_from([*STEPS, "update", "show", "begin", "schedule", "add_group"]), min_size=2, max_size=20
)


@pytest.mark.parametrize("shown", [False, True])
@settings(max_examples=30)
@given(script=resumable, where=st.floats(0, 1), dtype=DTYPES, foreach=st.booleans(), scope=st.sampled_from(SCOPES))
def test_a_resumed_run_goes_on_bit_for_bit(
    shown: bool, script: list[str], where: float, dtype: torch.dtype, foreach: bool, scope: str
) -> None:
    cut = round(where * len(script))
    run = Run(dtype=dtype, scope=scope, foreach=foreach)
    run.optimizer.observe(2.0)
    for action in script[:cut]:
        run.act(action)
    if shown:
        run.optimizer.show_averaged_weights()
    other = resumed(run, scope, foreach=foreach)
    run.optimizer.show_training_weights()
    assert equal_runs(run, other)
    for action in script[cut:]:
        run.act(action)
        other.act(action)
        assert equal_runs(run, other)
        assert comparable(run) == comparable(other)


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))], ids=["deepcopy", "pickle"]
)
@settings(max_examples=20)
@given(script=resumable, where=st.floats(0, 1))
def test_copies_go_on_bit_for_bit(how: Callable[[Any], Any], shown: bool, script: list[str], where: float) -> None:
    cut = round(where * len(script))
    run = Run()
    for action in script[:cut]:
        run.act(action)
    if shown:
        run.optimizer.show_averaged_weights()
    noise = run.noise.get_state()
    del run.noise
    parts = how((run.model, run.topology, run.optimizer))
    other = Run()
    other.model, other.topology, other.optimizer = parts
    run.noise = torch.Generator()
    run.noise.set_state(noise)
    other.noise.set_state(noise)
    assert comparable(run) == comparable(other)
    assert equal_runs(run, other)
    for each in (run, other):
        each.optimizer.show_training_weights()
    for action in script[cut:]:
        run.act(action)
        other.act(action)
        assert equal_runs(run, other)
    assert run.optimizer.observe(1.0) == other.optimizer.observe(1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights_keep_single_precision_means_and_whole_births(dtype: torch.dtype) -> None:
    run = averaging_run(dtype=dtype)
    for each in (run, resumed(run, "gates")):
        states = list(each.optimizer.state.values())
        assert len(states) == len(each.parameters())
        assert all(state["mean"].dtype == state["sum"].dtype == torch.float32 for state in states)
        births = [state["born"] for state in states]
        assert {type(born) for born in births} == {int, Tensor}
        assert {born.dtype for born in births if isinstance(born, Tensor)} == {torch.int32}
        assert {born for born in births if isinstance(born, int)} == {1}
        assert {step for born in births if isinstance(born, Tensor) for step in born.unique().tolist()} == {1, 3}


def test_saving_has_no_side_effects() -> None:
    run, undisturbed = averaging_run(), averaging_run()
    for each in (run, undisturbed):
        before = comparable(each)
        if each is run:
            first = through_a_file(run.optimizer.state_dict())
            second = through_a_file(run.optimizer.state_dict())
            assert first.keys() == second.keys()
            torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)
        assert comparable(each) == before
        each.act("step")
        each.act("show")
    assert equal_runs(run, undisturbed)
