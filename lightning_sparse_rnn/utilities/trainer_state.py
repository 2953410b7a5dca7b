"""What is read of the state of Lightning's loops, and how a checkpoint's counters are repaired."""

from __future__ import annotations

import math
from typing import Any

from pytorch_lightning import Trainer

__all__ = [
    "ancestors",
    "batch_is_broken_off",
    "batch_runs",
    "gradients_wait",
    "length",
    "limits",
    "logging_step",
    "next_batch",
    "progress",
    "settle",
    "validation_follows",
]


def batch_is_broken_off(trainer: Trainer) -> bool:
    """Whether a training batch has been begun and not processed, so that a resumed run does it again."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # typed without `processed`
    return bool(batches.ready > batches.processed)


def next_batch(trainer: Trainer) -> tuple[int, int]:
    """Return the epoch, and the batch in it, that training processes next."""
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.current  # typed without `started` and `processed`
    batches: Any = loop.epoch_loop.batch_progress
    # Resuming from the end of an epoch, Lightning sets `completed` to `processed` only after it has begun to read; with
    # `max_steps` it leaves `completed` as it is and counts that epoch's end again.
    epoch = epochs.processed if trainer.max_steps == -1 else epochs.completed
    if epochs.started == epoch:  # between two epochs: the count of batches is still that of the last one
        return epoch, 0
    over = batches.is_last_batch and batches.current.processed == batches.current.ready
    return (epoch + 1, 0) if over else (epoch, batches.current.processed)


def batch_runs(trainer: Trainer) -> bool:
    """Whether a training batch has been started and not processed; unlike one that is only ready."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(batches.started > batches.processed)


def gradients_wait(trainer: Trainer) -> bool:
    """Whether gradients of processed batches wait for the rest of those that one optimizer step is made of."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    over = batches.is_last_batch and not batch_is_broken_off(trainer)
    return not over and batches.current.processed % trainer.accumulate_grad_batches != 0


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates after the last processed batch, in the epoch that is still going on."""
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.current
    fetcher = loop._data_fetcher
    return bool(epochs.started > epochs.processed and fetcher and loop.epoch_loop._should_check_val_fx(fetcher))


def progress(
    trainer: Trainer, steps: int, batch: int, within_epochs: bool
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return what of a run is done, where that ends, and what is left, as far as it is known now.

    Args:
        trainer: one that fits.
        steps: optimizer steps that have been counted so far.
        batch: batches of this epoch so far.
        within_epochs: leave out epochs as long as nobody knows how long one is.

    Returns:
        Three dicts, of epochs, optimizer steps, Lightning's ``global_step`` (in which those of several optimizers are
        counted together), and seconds.
    """
    length = _epoch_length(trainer, batch)
    inside = 0.0 if length is None else min(1.0, batch / length)
    done: dict[str, float] = {
        "epochs": trainer.current_epoch + inside,
        "optimizer steps": steps,
        "global steps": trainer.global_step,
        "seconds": 0.0,
    }
    ends: dict[str, float] = {}
    epochs, most = trainer.max_epochs, trainer.max_steps
    counted = _counts_steps(trainer) and not _leaves_out_steps(trainer, steps)
    batches = trainer.num_training_batches
    if counted and (epochs == -1 or batches != math.inf) and 0 < trainer.estimated_stepping_batches < math.inf:
        ends["optimizer steps"] = float(trainer.estimated_stepping_batches)
    else:
        if epochs and epochs > 0 and (length is not None or not within_epochs):
            ends["epochs"] = epochs
        if most > 0:
            ends["optimizer steps" if counted else "global steps"] = most
    seconds = _seconds(trainer)
    if seconds is not None:
        done["seconds"], ends["seconds"] = seconds
    left = {name: end - done[name] for name, end in ends.items()}
    if "optimizer steps" in ends and counted and epochs and epochs > 0 and batches != math.inf:
        # What is left of so many epochs of this length, whatever those before had.
        of_epochs = _steps_per_epoch(trainer) * (epochs - done["epochs"])
        left["optimizer steps"] = min(of_epochs, most - steps) if most > 0 else of_epochs
    return done, ends, left


def limits(trainer: Trainer) -> dict[str, float]:
    """Return the limits that a Trainer was given: epochs, optimizer steps, seconds; −1 where there is none."""
    timer = _timer(trainer)
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    return {"epochs": epochs, "steps": trainer.max_steps, "seconds": -1.0 if timer is None else timer._duration}


def length(trainer: Trainer) -> tuple[int, int] | None:
    """Return how many optimizer steps a run has in all, and an epoch of it; ``None`` where that is not known."""
    if not _counts_steps(trainer) or trainer.num_training_batches in (0, math.inf) or _timer(trainer) is not None:
        return None
    steps = trainer.estimated_stepping_batches
    return (int(steps), _steps_per_epoch(trainer)) if 0 < steps < math.inf else None


def logging_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs its own metrics; ``global_step`` counts several optimizers together."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def _epoch_length(trainer: Trainer, batch: int) -> float | None:
    """Return how many batches an epoch has: by its loader, or else on average so far."""
    if trainer.num_training_batches != math.inf:
        return max(1, trainer.num_training_batches)
    seen: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    earlier = seen.processed - batch
    return earlier / trainer.current_epoch if trainer.current_epoch and earlier > 0 else None


def _counts_steps(trainer: Trainer) -> bool:
    """Whether it follows from the batches how many optimizer steps there are."""
    return trainer.lightning_module.automatic_optimization and not _accumulation_changes(trainer)


def _leaves_out_steps(trainer: Trainer, steps: int) -> bool:
    """Whether the module's own ``optimizer_step`` has left out some: nobody knows how many there will be."""
    own = type(trainer.lightning_module).optimizer_step.__module__
    return own.partition(".")[0] not in ("pytorch_lightning", "lightning") and steps < trainer.global_step


def _steps_per_epoch(trainer: Trainer) -> int:
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def _accumulation_changes(trainer: Trainer) -> bool:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any("GradientAccumulationScheduler" in ancestors(callback) for callback in callbacks)


def _timer(trainer: Trainer) -> Any:
    """Return the callback that ends the run after a time, if there is one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    timers = [each for each in callbacks if "Timer" in ancestors(each) and getattr(each, "_duration", None)]
    return min(timers, key=lambda timer: timer._duration, default=None)


def _seconds(trainer: Trainer) -> tuple[float, float] | None:
    """Return the seconds that training has taken by the first process's clock, and after how many it ends."""
    timer = _timer(trainer)
    if timer is None:
        return None
    return float(trainer.strategy.broadcast(timer.time_elapsed())), float(timer._duration)


def settle(loops: dict[str, Any], validation_is_due: bool) -> None:
    """Turn counters saved at any moment into ones that Lightning goes on from as if nothing had happened.

    Lightning does so with the counters of an epoch's end, of a validation's end, of a batch's end that no validation
    follows, and of the first step of a validation. Checkpoints are written at other moments too: by
    ``every_n_train_steps`` before a validation, which a resumed run would leave out, and by exceptions at any time, in
    a validation of which it would do a part, at an epoch's start, where it would leave out the epoch, and in a batch,
    which it would do again and count twice.

    Args:
        loops: the fit loop's part of a checkpoint; changed in place.
        validation_is_due: whether the validation after the last processed batch had not ended.
    """
    _settle_epochs(loops["epoch_progress"])
    batches = loops["epoch_loop.batch_progress"]
    if batches["current"]["ready"] > batches["current"]["processed"]:
        batches["is_last_batch"] = False
        for count in (batches["total"], batches["current"]):
            _set(count, begun=count["processed"], ended=count["processed"])
    if validation_is_due:
        for count in (batches["total"], batches["current"]):
            count["completed"] = count["processed"]
    validation = loops["epoch_loop.val_loop.batch_progress"]
    ended = validation["total"]["completed"]
    _set(validation["total"], begun=ended + validation_is_due, ended=ended)
    if validation_is_due:
        _set(validation["current"], begun=0, ended=0)


def _settle_epochs(epochs: dict[str, Any]) -> None:
    if epochs["current"]["started"] > epochs["current"]["processed"] or epochs["current"]["processed"] == 0:
        return
    for count in (epochs["total"], epochs["current"]):  # between two epochs: as at the first one's end
        count.update(ready=count["processed"], completed=count["processed"] - 1)


def _set(count: dict[str, int], begun: int, ended: int) -> None:
    count.update(ready=begun, started=begun, processed=ended, completed=ended)


def ancestors(instance: object) -> set[str]:
    """Return the names of the classes that ``instance`` is of, whichever Lightning they come from."""
    return {kind.__name__ for kind in type(instance).__mro__}
