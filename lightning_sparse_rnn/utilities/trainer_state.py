"""Repairs the counters of Lightning's loops in a checkpoint, so that a resumed run continues at the right place."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Trainer

__all__ = ["ancestors", "batch_is_broken_off", "gradients_wait", "settle", "validation_follows"]


def batch_is_broken_off(trainer: Trainer) -> bool:
    """Whether a training batch has been begun and not processed, so that a resumed run does it again."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # typed without `processed`
    return bool(batches.ready > batches.processed)


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
