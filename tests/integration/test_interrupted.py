"""Runs that an exception ends at any moment: the checkpoint it leaves goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, Recipe, Run, Toy, end_state, rest_differs
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor

pytestmark = QUIET

RECIPES = {kind: Recipe(kind, options={"max_epochs": 5}) for kind in ("toy", "text")}
BATCHES = {"toy": 5, "text": 6}


@pytest.fixture(autouse=True)
def _keep_signal_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Break(pl.Callback):
    """Raises in one hook (of the Trainer's n-th batch, where the hook belongs to batches), after ``step`` steps."""

    def __init__(self, hook: str, step: int, batch: int | None = None, error: Any = RuntimeError) -> None:
        self.step, self.batch, self.error = step, batch, error
        setattr(self, hook, self._raise)

    def _raise(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any) -> None:
        here = trainer.global_step == self.step and not trainer.sanity_checking
        if here and self.batch in (None, *[argument for argument in arguments if isinstance(argument, int)]):
            if self.error is signal.SIGTERM:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise self.error("broken")


class SaveOnException(Checkpoint):
    """Leaves ``broken.ckpt``."""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "broken.ckpt")


def break_off(
    recipe: Recipe,
    folder: Path,
    breaks: Break,
    first: bool = False,
    ckpt_path: Path | None = None,
    saver: Checkpoint | None = None,
) -> pl.LightningModule:
    """Make the run until it breaks, save it, and return its module."""
    module = recipe.module()
    trainer = recipe.trainer(folder, breaks, saver or SaveOnException())
    if first:
        trainer.callbacks.remove(breaks)
        trainer.callbacks.insert(0, breaks)
    torch.manual_seed(1)
    with pytest.raises((RuntimeError, SystemExit)) as caught:
        trainer.fit(module, **recipe.feed(folder), ckpt_path=ckpt_path)
    assert breaks.error is signal.SIGTERM or caught.type is SystemExit or str(caught.value) == "broken"
    return module


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs that nothing broke off."""
    return {kind: recipe.run(tmp_path_factory.mktemp("whole")) for kind, recipe in RECIPES.items()}


# (hook, step in the epoch after which it is, number of the batch, whether the others' hooks come after it)
BETWEEN = {
    "after the last batch": ("on_train_batch_end", "end", None, False),
    "after the last batch, before our hooks": ("on_train_batch_end", "end", None, True),
    "before validation": ("on_validation_start", "end", None, False),
    "before a validation batch": ("on_validation_batch_start", "end", 1, False),
    "after a validation batch": ("on_validation_batch_end", "end", 0, False),
    "after all validation batches": ("on_validation_epoch_end", "end", None, False),
    "after validation": ("on_validation_end", "end", None, False),
    "after validation, before our hooks": ("on_validation_end", "end", None, True),
    "at the end of the epoch": ("on_train_epoch_end", "end", None, False),
    "at the start of the next epoch": ("on_train_epoch_start", "end", None, False),
    "at the start of the next epoch, before our hooks": ("on_train_epoch_start", "end", None, True),
}
INSIDE = {
    "before the first batch": ("on_train_batch_start", 0, 0, False),
    "in the first batch": ("on_after_backward", 0, None, False),
    "before a batch": ("on_train_batch_start", 2, 2, False),
    "before a batch, before our hooks": ("on_train_batch_start", 2, 2, True),
    "in a batch": ("on_after_backward", 2, None, False),
    "after a batch": ("on_train_batch_end", 3, 2, False),
    "after a batch, before our hooks": ("on_train_batch_end", 3, 2, True),
    "in the last batch": ("on_after_backward", 5, None, False),
}


@pytest.mark.parametrize(
    ("kind", "moment"),
    # A shuffling DataLoader does not know its place in an epoch, of which Lightning warns.
    [*[("toy", moment) for moment in BETWEEN], *[("text", moment) for moment in (*BETWEEN, *INSIDE)]],
)
def test_a_run_broken_off_at_any_moment_goes_on_as_if_it_had_not_been(
    whole: dict[str, Run], tmp_path: Path, kind: str, moment: str
) -> None:
    hook, step, batch, first = {**BETWEEN, **INSIDE}[moment]
    length = BATCHES[kind]
    done = 3 * length + (length if step == "end" else step)  # in the fourth epoch, which averages
    break_off(RECIPES[kind], tmp_path, Break(hook, done, batch), first=first)
    resumed = RECIPES[kind].run(tmp_path, ckpt_path=tmp_path / "broken.ckpt")
    assert len(resumed.rows) >= length
    assert not rest_differs(whole[kind], resumed)


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("batch", [0, 1])
def test_a_run_broken_off_in_a_validation_step_goes_on_as_if_it_had_not_been(
    whole: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, batch: int, error: type
) -> None:
    recipe, breaks = RECIPES[kind], Break("no_hook", 4 * BATCHES[kind], batch, error)
    module_type = type(recipe.module())
    step = module_type.validation_step

    def validation_step(self: Any, *arguments: Any) -> Any:
        breaks._raise(self.trainer, self, *arguments)
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module_type, "validation_step", validation_step)
        module = break_off(recipe, tmp_path, breaks)
    saved = torch.load(tmp_path / "broken.ckpt", weights_only=True)
    training = saved["lightning_sparse_rnn.training_weights"]
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, training[name]), f"{name} does not have its training weights"
        assert not torch.equal(parameter, saved["state_dict"][name])
    assert not rest_differs(whole[kind], recipe.run(tmp_path, ckpt_path=tmp_path / "broken.ckpt"))


@pytest.mark.filterwarnings(
    "ignore:`.fit.ckpt_path=None.` was called without a model",
    "ignore:.fit.ckpt_path=.last.. is set, but there is no last checkpoint",
)
@pytest.mark.parametrize(
    "saver",
    [
        lambda folder: OnExceptionCheckpoint(str(folder), "broken"),
        lambda folder: ModelCheckpoint(folder, filename="broken", save_on_exception=True),
    ],
    ids=["OnExceptionCheckpoint", "ModelCheckpoint"],
)
def test_lightnings_own_checkpoints_of_an_exception_go_on_as_if_it_had_not_been(
    whole: dict[str, Run], tmp_path: Path, saver: Callable[[Path], Checkpoint]
) -> None:
    try:
        leaves = saver(tmp_path)
    except TypeError:
        pytest.skip("this Lightning's ModelCheckpoint saves nothing on exceptions")
    break_off(RECIPES["text"], tmp_path, Break("on_validation_batch_end", 24, 0), saver=leaves)
    assert not rest_differs(whole["text"], RECIPES["text"].run(tmp_path, ckpt_path=tmp_path / "broken.ckpt"))


@pytest.mark.parametrize(("kind", "steps"), [("toy", 20), ("text", 24), ("text", 21)])
def test_a_run_that_is_told_to_stop_goes_on_as_if_it_had_not_been(
    whole: dict[str, Run], tmp_path: Path, kind: str, steps: int
) -> None:
    break_off(RECIPES[kind], tmp_path, Break("on_train_batch_end", steps, error=signal.SIGTERM))
    assert not rest_differs(whole[kind], RECIPES[kind].run(tmp_path, ckpt_path=tmp_path / "broken.ckpt"))


@pytest.mark.parametrize("kind", RECIPES)
def test_the_first_epoch_can_be_broken_off_at_its_start(whole: dict[str, Run], tmp_path: Path, kind: str) -> None:
    break_off(RECIPES[kind], tmp_path, Break("on_train_epoch_start", 0))
    assert not rest_differs(whole[kind], RECIPES[kind].run(tmp_path, ckpt_path=tmp_path / "broken.ckpt"))


@pytest.mark.parametrize("kind", RECIPES)
def test_a_validation_can_be_broken_off_twice(whole: dict[str, Run], tmp_path: Path, kind: str) -> None:
    breaks = Break("on_validation_batch_end", 4 * BATCHES[kind], 1)
    break_off(RECIPES[kind], tmp_path, breaks)
    break_off(RECIPES[kind], tmp_path, breaks, ckpt_path=tmp_path / "broken.ckpt")
    assert not rest_differs(whole[kind], RECIPES[kind].run(tmp_path, ckpt_path=tmp_path / "broken.ckpt"))


@pytest.mark.parametrize(
    "breaks",
    [("on_after_backward", 9, None), ("on_train_batch_end", 9, 2), ("on_validation_batch_end", 9, 1)],
    ids=["in a batch", "before a validation", "in a validation"],
)
def test_a_resumed_run_leaves_checkpoints_as_good_as_any(tmp_path: Path, breaks: tuple[Any, ...]) -> None:
    recipe = Recipe("text", options={"val_check_interval": 3})
    uninterrupted = recipe.run(tmp_path)
    break_off(recipe, tmp_path, Break(*breaks))
    every = ModelCheckpoint(tmp_path / "saved", filename="{step}", save_top_k=-1, every_n_train_steps=1)
    validated = ModelCheckpoint(tmp_path / "saved", filename="v{step}", save_top_k=-1, save_on_train_epoch_end=False)
    recipe.run(tmp_path, every, validated, ckpt_path=tmp_path / "broken.ckpt")
    for name in ("step=10", "step=11", "step=12", "vstep=12", "step=13"):
        path = tmp_path / "saved" / f"{name}.ckpt"
        assert not rest_differs(uninterrupted, recipe.run(tmp_path, ckpt_path=path)), name


def test_a_checkpoint_written_inside_an_optimizer_step_says_so(tmp_path: Path) -> None:
    break_off(RECIPES["text"], tmp_path, Break("on_before_optimizer_step", 8))
    with pytest.warns(UserWarning, match="an optimizer step is taken again that may have been taken") as told:
        RECIPES["text"].run(tmp_path, ckpt_path=tmp_path / "broken.ckpt")
    # Once, and not by each of our callbacks.
    assert sum("an optimizer step is taken again" in str(warning.message) for warning in told) == 1


def test_a_checkpoint_written_while_gradients_accumulate_says_so(tmp_path: Path) -> None:
    recipe = Recipe("text", options={"accumulate_grad_batches": 3})
    break_off(recipe, tmp_path, Break("on_train_batch_start", 2, 2))
    with pytest.warns(UserWarning, match="the gradients accumulated since the last optimizer step are gone"):
        recipe.run(tmp_path, ckpt_path=tmp_path / "broken.ckpt")


def test_a_last_validation_that_is_not_made_up_for_is_named(tmp_path: Path) -> None:
    recipe = Recipe("text", options={"max_epochs": -1, "max_steps": 18})
    break_off(recipe, tmp_path, Break("on_validation_start", 18))
    with pytest.warns(UserWarning, match="the validation after the last step is not made"):
        recipe.run(tmp_path, ckpt_path=tmp_path / "broken.ckpt")


def test_a_plateau_scheduler_that_misses_an_update_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def configure_optimizers(self: Toy) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "rising"}}

    monkeypatch.setattr(Toy, "configure_optimizers", configure_optimizers)
    recipe, saver = Recipe(optimizer="sgd"), ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)
    whole = recipe.run(tmp_path, saver)
    with pytest.warns(UserWarning, match="Lightning leaves out an update of ReduceLROnPlateau"):
        resumed = recipe.run(tmp_path, ckpt_path=tmp_path / "step=15.ckpt")
    rates = [run.trainer.optimizers[0].param_groups[0]["lr"] for run in (whole, resumed)]
    assert rates == [0.1 / 16, 0.1 / 8]


def test_a_run_resumed_at_its_end_has_its_averages_in_the_module(tmp_path: Path) -> None:
    last = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    finished = RECIPES["text"].run(tmp_path, last)
    resumed = RECIPES["text"].run(tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.rows == []
    averages, training = end_state(finished.trainer)["state_dict"], _training_weights(finished.trainer)
    for name, parameter in resumed.module.named_parameters():
        assert torch.equal(parameter, averages[name])
        assert not torch.equal(parameter, training[name])


def _training_weights(trainer: pl.Trainer) -> dict[str, Tensor]:
    (optimizer,) = trainer.optimizers
    return {name: optimizer.training(parameter) for name, parameter in trainer.lightning_module.named_parameters()}
