"""SNT-ASGD against a slow reference, torch's own SGD, and itself interrupted at any moment."""

import copy
import io
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snt_asgd_reference import ReferenceSNTASGD, trigger_fires
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.sparsity import SparseTopology

SCOPES = ["none", "gates", "layer", "model"]
STEPS = ["step", "step", "step", "some_gradients", "closure"]
OTHERS = ["update", "masks", "show", "begin", "schedule", "add_group", "no_masks"]
scripts = st.lists(st.sampled_from([*STEPS, *OTHERS]), min_size=5, max_size=30)


class TiedModel(nn.Module):
    """A tied embedding and decoder, a recurrent layer, biases that stay dense."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.rnn = nn.LSTM(3, 3)
        self.decoder = nn.Linear(3, 7)
        self.decoder.weight = self.embedding.weight
        self.late = nn.Parameter(torch.randn(2, 3))  # joins the optimizer after the others

    def groups(self) -> list[dict[str, Any]]:
        parameters = [p for p in self.parameters() if p is not self.late]
        return [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() == 1], "lr": 0.1, "weight_decay": 0.0},
        ]


class Run:
    """A model with its optimizer and topology, which acts out scripts of what may happen in training."""

    def __init__(
        self, *, dtype: torch.dtype = torch.float64, seed: int = 0, scope: str = "gates", **options: Any
    ) -> None:
        torch.manual_seed(seed)
        self.model = TiedModel().to(dtype)
        self.topology = SparseTopology(self.model, 0.5, redistribution=scope, exclude="late")
        self.optimizer = SNTASGD(self.model.groups(), lr=0.5, weight_decay=0.03, **options)
        self.optimizer.set_masks(self.topology.masks)
        self.noise = torch.Generator().manual_seed(seed)

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def random(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.noise, dtype=torch.float64).to(like.dtype)

    def give_gradients(self, share: float = 1.0) -> None:
        for parameter in self.parameters():
            parameter.grad = self.random(parameter)
            if float(torch.rand((), generator=self.noise)) >= share:
                parameter.grad = None

    def act(self, action: str) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]] | None:
        """Do what ``action`` says; return the masks and births that it set, if it did."""
        if action == "step":
            self.give_gradients()
            self.optimizer.step()
        elif action == "some_gradients":
            self.give_gradients(share=0.5)
            self.optimizer.step()
        elif action == "closure":
            self.optimizer.step(self.closure)
        elif action == "show":
            with self.optimizer.averaged_weights():
                pass
        elif action == "begin":
            self.optimizer.restart()
        elif action == "schedule":
            for group in self.optimizer.param_groups:
                group["lr"] *= 0.9
        elif action == "add_group":
            if len(self.optimizer.param_groups) == 2:
                self.optimizer.add_param_group({"params": [self.model.late], "lr": 0.2})
        elif action == "update":
            return self.set(self.topology.masks, self.topology.update(0.4).born)
        elif action == "masks":
            return self.set(*self.change({p: self.random(p) > 0 for p in self.topology.masks}))
        elif action == "no_masks":
            _, born = self.change({p: torch.ones_like(p, dtype=torch.bool) for p in self.topology.masks})
            return self.set({}, born)
        return None

    def change(self, live: dict[Tensor, Tensor]) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]]:
        """Make other weights live; those that were not are born, and some of those that were are born again."""
        born = {}
        for parameter, mask in self.topology.masks.items():
            born[parameter] = live[parameter] & ((mask == 0) | (self.random(parameter) > 1))
            mask.copy_(live[parameter])
            parameter.data[born[parameter]] = 0.0
        return self.topology.masks, born

    def set(
        self, masks: dict[Tensor, Tensor], born: dict[Tensor, Tensor]
    ) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]]:
        self.optimizer.set_masks(masks, born)
        return masks, born

    def closure(self) -> float:
        assert torch.is_grad_enabled()
        self.give_gradients()
        return 1.5


def comparable(run: Run) -> list[list[float]]:
    return [parameter.flatten().tolist() for parameter in run.parameters()]


# --------------------------------------------------------------------------------------------- the slow reference


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@given(script=scripts, seed=st.integers(0, 99), scope=st.sampled_from(SCOPES))
def test_every_step_is_that_of_the_reference(
    foreach: bool, maximize: bool, script: list[str], seed: int, scope: str
) -> None:
    run = Run(seed=seed, scope=scope, foreach=foreach, maximize=maximize)
    reference = ReferenceSNTASGD(maximize=maximize)
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            reference.add(parameter.flatten().tolist(), group["lr"], group["weight_decay"])
    follow_masks(reference, run, run.topology.masks, {})

    for action in script:
        changed = run.act(action)
        if action in STEPS:
            reference.step([None if p.grad is None else p.grad.flatten().tolist() for p in run.parameters()])
        elif action == "begin":
            reference.begin()
        elif action == "schedule":
            for tensor in reference.tensors:
                tensor.lr *= 0.9
        elif action == "add_group" and len(reference.tensors) < len(run.parameters()):
            reference.add(run.model.late.flatten().tolist(), 0.2, 0.03)
        elif changed is not None:
            follow_masks(reference, run, *changed)
        assert run.optimizer.averaging == reference.averaging
        compare(run, reference)

    with run.optimizer.averaged_weights():
        for parameter, tensor in zip(run.parameters(), reference.tensors, strict=True):
            close(parameter.detach(), [weight.averaged for weight in tensor.weights])
        compare(run, reference)


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=found.dtype), rtol=1e-9, atol=1e-12)


def follow_masks(
    reference: ReferenceSNTASGD, run: Run, masks: dict[Tensor, Tensor], born: dict[Tensor, Tensor]
) -> None:
    reference.set_masks(
        [masks[p].flatten().tolist() if p in masks else None for p in run.parameters()],
        [born[p].flatten().tolist() if p in born else None for p in run.parameters()],
    )


def compare(run: Run, reference: ReferenceSNTASGD) -> None:
    for parameter, tensor in zip(run.parameters(), reference.tensors, strict=True):
        training, averaged = run.optimizer.training(parameter), run.optimizer.averaged(parameter)
        close(training, [weight.value for weight in tensor.weights])
        close(averaged, [weight.averaged for weight in tensor.weights])
        dead = torch.tensor([not weight.live for weight in tensor.weights]).view(parameter.shape)
        assert not training[dead].any()
        assert not averaged[dead].any()


def test_values_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([4.0, 4.0, 0.0]))
    optimizer = SNTASGD([weight], lr=1.0)
    optimizer.set_masks({weight: torch.tensor([1.0, 1.0, 0.0])})
    optimizer.restart()
    assert optimizer.averaged(weight).tolist() == [4.0, 4.0, 0.0]
    for _ in range(2):
        weight.grad = torch.ones(3)
        optimizer.step()
    assert weight.tolist() == [2.0, 2.0, 0.0]
    assert optimizer.averaged(weight).tolist() == [2.5, 2.5, 0.0]
    # The second weight dies, the third is born; the first one's average goes on.
    weight.data[1] = 0.0
    optimizer.set_masks({weight: torch.tensor([1.0, 0.0, 1.0])}, {weight: torch.tensor([False, False, True])})
    assert optimizer.averaged(weight).tolist() == [2.5, 0.0, 0.0]
    optimizer.step()
    assert optimizer.averaged(weight).tolist() == [2.0, 0.0, -1.0]
    # The third is pruned and comes back at once: it keeps its mask and is born again.
    weight.data[2] = 0.0
    optimizer.set_masks({weight: torch.tensor([1.0, 0.0, 1.0])}, {weight: torch.tensor([False, False, True])})
    optimizer.step()
    optimizer.step()
    assert weight.tolist() == [-1.0, 0.0, -2.0]
    assert optimizer.averaged(weight).tolist() == [pytest.approx((3 + 2 + 1 + 0 - 1 + 0) / 5 - 0), 0.0, -1.5]


# ------------------------------------------------------------------------------------------------- torch's own SGD


@pytest.mark.parametrize("foreach", [False, True, None])
@pytest.mark.parametrize("maximize", [False, True])
def test_without_masks_it_is_sgd_and_then_its_plain_average(foreach: bool | None, maximize: bool) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))

    ours, theirs = build(), build()
    optimizer = SNTASGD(ours.parameters(), lr=0.1, weight_decay=0.01, maximize=maximize, foreach=foreach)
    sgd = SGD(theirs.parameters(), lr=0.1, weight_decay=0.01, maximize=maximize)
    schedules = [ExponentialLR(each, 0.95) for each in (optimizer, sgd)]
    sums = [torch.zeros_like(parameter) for parameter in theirs.parameters()]
    for step in range(20):
        if step == 8:
            optimizer.restart()
        x = torch.randn(4, 5)
        for model, stepper, schedule in zip((ours, theirs), (optimizer, sgd), schedules, strict=True):

            def closure(model: nn.Module = model, stepper: torch.optim.Optimizer = stepper, x: Tensor = x) -> Tensor:
                stepper.zero_grad()
                loss = (model(x) - x.sum(1, keepdim=True)).square().mean().tanh()
                loss.backward()
                return loss

            assert stepper.step(closure) is not None
            schedule.step()
        if step >= 8:
            torch._foreach_add_(sums, [parameter.detach() for parameter in theirs.parameters()])
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))
    for parameter, total in zip(ours.parameters(), sums, strict=True):
        torch.testing.assert_close(optimizer.averaged(parameter), total / 12)


def test_a_closure_returns_its_loss() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))

    def closure() -> float:
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert SNTASGD([weight], lr=0.5).step(closure) == 9.0
    assert weight.item() == 0.0


# ------------------------------------------------------------------------------------------------------- the trigger

losses_with_nonsense = st.lists(
    st.sampled_from([1.0, 1.5, 2.0, 2.5, 3.0, math.nan, math.inf, -math.inf]) | st.floats(0, 10), max_size=30
)


@given(losses_with_nonsense, st.integers(1, 6))
def test_trigger_is_that_of_algorithm_1_on_the_finite_losses(losses: list[float], nonmono: int) -> None:
    optimizer = SNTASGD([nn.Parameter(torch.zeros(1))], lr=1.0, nonmono=nonmono)
    finite = [loss for loss in losses if math.isfinite(loss)]
    fired = []
    for loss in losses:
        if math.isfinite(loss):
            fired.append(optimizer.observe(loss))
        else:
            with pytest.warns(UserWarning, match="trigger of SNTASGD leaves out a validation loss of"):
                assert optimizer.observe(torch.tensor(loss)) is False
        assert optimizer.averaging == any(fired)
    expected = trigger_fires(finite, nonmono)
    assert [i for i, fire in enumerate(fired) if fire] == ([] if expected is None else [expected])
    assert optimizer.history == tuple(finite)


def test_trigger_by_hand() -> None:
    optimizer = SNTASGD([nn.Parameter(torch.zeros(1))], lr=1.0, nonmono=2)
    assert [optimizer.observe(loss) for loss in (5.0, 3.0, 4.0, 4.0, 4.0)] == [False, False, False, False, True]
    # 4 > 3 fires only once 3 is more than two validations ago; 5 is beaten before that.
    assert [optimizer.observe(loss) for loss in (9.0, 9.0)] == [False, False]
    assert optimizer.history == (5.0, 3.0, 4.0, 4.0, 4.0, 9.0, 9.0)
    optimizer.restart()
    assert optimizer.history == ()
    assert optimizer.averaging
    assert [optimizer.observe(loss) for loss in (1.0, 9.0, 9.0, 9.0)] == [False] * 4


def test_averages_begin_with_the_step_after_the_trigger_and_again_after_a_restart() -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    optimizer = SNTASGD([weight], lr=1.0, nonmono=1)

    def step() -> float:
        weight.grad = torch.ones(1)
        optimizer.step()
        return optimizer.averaged(weight).item()

    assert [step(), step()] == [9.0, 8.0]
    assert [optimizer.observe(loss) for loss in (1.0, 2.0, 2.0)] == [False, False, True]
    assert [step(), step(), step()] == [7.0, 6.5, 6.0]
    optimizer.restart()
    assert optimizer.averaged(weight).item() == 5.0
    assert [step(), step()] == [4.0, 3.5]


# -------------------------------------------------------------------------------------------------- showing averages


def averaging_run(**options: Any) -> Run:
    run = Run(**options)
    for action in ("step", "begin", "step", "step", "update", "step"):
        run.act(action)
    return run


def test_averages_are_shown_inside_and_weights_put_back() -> None:
    run = averaging_run()
    before = comparable(run)
    averages = [run.optimizer.averaged(parameter).flatten().tolist() for parameter in run.parameters()]
    assert averages != before
    with run.optimizer.averaged_weights():
        assert comparable(run) == averages
        with run.optimizer.averaged_weights():
            assert comparable(run) == averages
        assert comparable(run) == averages
        assert [run.optimizer.training(p).flatten().tolist() for p in run.parameters()] == before
        assert [run.optimizer.averaged(p).flatten().tolist() for p in run.parameters()] == averages
    assert comparable(run) == before


def test_before_the_trigger_nothing_is_shown() -> None:
    run = Run()
    run.act("step")
    before = comparable(run)
    with run.optimizer.averaged_weights():
        assert comparable(run) == before
        run.act("step")  # nor refused
    assert comparable(run) != before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_weights_are_put_back_whatever_is_raised(error: type[BaseException]) -> None:
    run = averaging_run()
    before = comparable(run)
    with pytest.raises(error), run.optimizer.averaged_weights(), run.optimizer.averaged_weights():
        raise error
    assert comparable(run) == before
    run.act("step")


def test_weights_are_put_back_if_showing_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    run, undisturbed = averaging_run(), averaging_run()
    before = comparable(run)
    copy_, calls = Tensor.copy_, []

    def interrupted(self: Tensor, *args: Any) -> Tensor:
        calls.append(self)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return copy_(self, *args)

    monkeypatch.setattr(Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt), run.optimizer.averaged_weights():
        pass
    monkeypatch.undo()
    assert comparable(run) == before
    undisturbed.act("show")
    for each in (run, undisturbed):
        each.act("step")
        each.act("show")
    assert [run.optimizer.averaged(p).tolist() for p in run.parameters()] == [
        undisturbed.optimizer.averaged(p).tolist() for p in undisturbed.parameters()
    ]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda run: run.act("step"), "take a step"),
        (lambda run: run.act("begin"), "start to average"),
        (lambda run: run.optimizer.set_masks(run.topology.masks), "change masks"),
    ],
)
def test_what_needs_the_training_weights_is_refused_while_averages_are_shown(
    act: Callable[[Run], object], said: str
) -> None:
    run = averaging_run()
    run.optimizer.observe(3.0)
    before = comparable(run)
    with run.optimizer.averaged_weights():
        shown = comparable(run)
        with pytest.raises(RuntimeError, match=f"Cannot {said} while the parameters show their averages: leave"):
            act(run)
        assert comparable(run) == shown
    assert comparable(run) == before
    assert run.optimizer.history == (3.0,)


def test_shown_averages_stay_until_training_weights_are_asked_for() -> None:
    run = averaging_run()
    before = comparable(run)
    run.optimizer.show_averaged_weights()
    shown = comparable(run)
    run.optimizer.show_averaged_weights()
    with run.optimizer.averaged_weights():
        pass
    assert comparable(run) == shown
    run.optimizer.show_training_weights()
    run.optimizer.show_training_weights()
    assert comparable(run) == before != shown


def test_queries_are_copies() -> None:
    run = averaging_run()
    for shown in (False, True):
        if shown:
            run.optimizer.show_averaged_weights()
        before = comparable(run)
        for parameter in run.parameters():
            kept = [run.optimizer.averaged(parameter), run.optimizer.training(parameter)]
            for query in (run.optimizer.averaged, run.optimizer.training):
                assert not query(parameter).requires_grad
                query(parameter).fill_(7.0)
            again = [run.optimizer.averaged(parameter), run.optimizer.training(parameter)]
            assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
        assert comparable(run) == before


# ------------------------------------------------------------------------------------------------------------- masks


def test_masks_of_the_right_kind_are_shared_and_others_converted() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = SNTASGD([weight], lr=1.0)
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    weight.grad = -torch.ones(2, 2)
    optimizer.set_masks({weight: mask})
    mask[1, 1] = 0.0
    optimizer.step()
    assert weight.tolist() == [[2.0, 0.0], [2.0, 1.0]]
    optimizer.set_masks({weight: torch.tensor([[True, True], [False, False]])})
    optimizer.step()
    assert weight.tolist() == [[3.0, 1.0], [0.0, 0.0]]


def test_masks_of_another_optimizer_are_passed_over_and_foreign_ones_refused() -> None:
    one, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = SNTASGD([one], lr=1.0)
    optimizer.set_masks({one: torch.tensor([1.0, 0.0, 0.0]), other: torch.zeros(2)})
    assert (one.tolist(), other.tolist()) == ([1.0, 0.0, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"None of the masks is for a parameter of this optimizer\. Was it made for"):
        optimizer.set_masks({other: torch.zeros(2)})


@pytest.mark.parametrize("which", ["mask", "born"])
def test_a_mask_of_the_wrong_shape_is_refused_before_anything_changes(which: str) -> None:
    one, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 4))
    masks = {one: torch.zeros(3), other: torch.zeros(2, 4)}
    born = {other: torch.zeros(2, 4, dtype=torch.bool)}
    ({"mask": masks, "born": born}[which])[other] = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=rf"the {which} of a parameter in its shape \(2, 4\), got \(4, 2\)"):
        SNTASGD([one, other], lr=1.0).set_masks(masks, born)
    assert one.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("foreach", [False, True])
def test_lstm_keeps_its_flat_weights(foreach: bool) -> None:
    model = nn.LSTM(3, 4, 2, bidirectional=True)
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    topology = SparseTopology(model, 0.5)
    optimizer = SNTASGD(model.parameters(), lr=0.1, weight_decay=0.01, foreach=foreach)
    optimizer.restart()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            optimizer.set_masks(topology.masks, topology.update(0.5).born)
            model(torch.randn(5, 2, 3))[0].sum().backward()
            optimizer.step()
            with optimizer.averaged_weights():
                model(torch.randn(5, 2, 3))
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == before
    flat = [weight for weight in model._flat_weights if weight is not None]
    assert all(one is other for one, other in zip(flat, model.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------------- saved state


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


def test_half_precision_means_are_not_rounded_on_the_way() -> None:
    """In bfloat16 a sum of 300 ones would stay at 256."""
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = SNTASGD([weight], lr=0.0)
    optimizer.restart()
    for _ in range(300):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert optimizer.averaged(weight).tolist() == [1.0, 1.0]
    assert optimizer.averaged(weight).dtype == torch.bfloat16


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


def test_the_state_of_another_optimizer_is_refused() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = SNTASGD([weight], lr=0.3)
    with pytest.raises(
        ValueError, match=r"Expected the state of an SNTASGD.*'param_groups', 'state'.*another optimizer"
    ):
        optimizer.load_state_dict(SGD([weight], lr=0.1).state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize("shapes", [[(3,), (2,)], [(2,)], [(2,), (3,), (1,)]])
def test_the_state_of_other_parameters_is_refused(shapes: list[tuple[int, ...]]) -> None:
    optimizer = SNTASGD([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))], lr=0.3)
    other = SNTASGD([nn.Parameter(torch.ones(shape)) for shape in shapes], lr=0.1)
    other.restart()
    with pytest.raises(ValueError, match=r"parameter"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert not optimizer.averaging


# ----------------------------------------------------------------------------------------------------- refused input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "`lr` to be a finite number of at least 0, got -1.0"),
        ({"lr": math.nan}, "`lr` to be a finite number of at least 0, got nan"),
        ({"lr": math.inf}, "`lr` to be a finite number of at least 0, got inf"),
        ({"lr": 1.0, "weight_decay": -0.1}, "`weight_decay` to be a finite number of at least 0, got -0.1"),
        ({"lr": 1.0, "nonmono": 0}, "`nonmono` to be a whole number of at least 1, got 0"),
        ({"lr": 1.0, "nonmono": 2.5}, "`nonmono` to be a whole number of at least 1, got 2.5"),
        ({"lr": 1.0, "nonmono": math.nan}, "`nonmono` to be a whole number of at least 1, got nan"),
        ({"lr": 1.0, "nonmono": math.inf}, "`nonmono` to be a whole number of at least 1, got inf"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SNTASGD([nn.Parameter(torch.ones(1))], **options)


def test_sparse_gradients_are_refused_before_anything_changes() -> None:
    linear, embedding = nn.Linear(2, 2, bias=False), nn.Embedding(4, 2, sparse=True)
    optimizer = SNTASGD([{"params": linear.parameters()}, {"params": embedding.parameters()}], lr=1.0)
    linear(embedding(torch.tensor([1]))).sum().backward()
    before = linear.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"dense gradients only\. Make the embedding with `sparse=False`"):
        optimizer.step()
    assert torch.equal(linear.weight, before)


def test_without_births_it_is_nt_asgd_on_masked_weights() -> None:
    """Averages run over all steps since the trigger, zeros and earlier lives included; what is dead shows as zero."""
    weight = nn.Parameter(torch.randn(6, 7))
    optimizer = SNTASGD([weight], lr=0.1, weight_decay=0.01, since_birth=False)
    mask = torch.rand(6, 7) < 0.5
    optimizer.set_masks({weight: mask})
    optimizer.restart()
    moments = []
    for step in range(20):
        if step % 6 == 5:
            born = ~mask & (torch.rand(6, 7) < 0.3)
            mask = mask & (torch.rand(6, 7) < 0.7) | born
            optimizer.set_masks({weight: mask}, {weight: born})
        weight.grad = torch.randn(6, 7)
        optimizer.step()
        moments.append(weight.detach().clone())
        if step in (3, 7, 19):
            expected = torch.stack(moments).mean(0) * mask
            torch.testing.assert_close(optimizer.averaged(weight), expected)
            with optimizer.averaged_weights():
                torch.testing.assert_close(weight.detach(), expected)
            assert torch.equal(weight, moments[-1])
    assert optimizer.averaging
