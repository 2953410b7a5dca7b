"""What exact resume needs beyond weights, masks and optimizer state: random numbers and counters, as they stood."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_sparse_rnn.callbacks.base import Callback
from lightning_sparse_rnn.utilities.trainer_state import (
    ancestors,
    batch_is_broken_off,
    gradients_wait,
    settle,
    validation_follows,
)

__all__ = ["ExactResume", "bring_exact_resume", "load_unrounded"]

_KEY = "lightning_sparse_rnn.resume"


def bring_exact_resume(trainer: Trainer) -> None:
    """Give a Trainer an :class:`ExactResume`, or move the one it has; for the ``setup`` of callbacks that rely on it.

    It goes right behind the last of our callbacks. A validation has ended when they have seen its end, and not before:
    one that is broken off while they do is made again. And it goes before those that save, which Lightning puts last:
    they save what it has noted.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if isinstance(callback, ExactResume)] or [ExactResume()]
    others = [callback for callback in callbacks if not isinstance(callback, ExactResume)]
    behind = max((index + 1 for index, callback in enumerate(others) if isinstance(callback, Callback)), default=0)
    trainer.callbacks = [*others[:behind], found[0], *others[behind:]]  # type: ignore[attr-defined]


def load_unrounded(trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Load the weights again for a run in float64: Lightning loads them before it turns the module to it."""
    if "DoublePrecision" in ancestors(trainer.precision_plugin) and module.dtype != torch.float64:
        trainer.precision_plugin.convert_module(module)
        trainer.strategy.load_model_state_dict(checkpoint, strict=module.strict_loading)


class ExactResume(Callback):
    """Lets training go on from any checkpoint as if it had not been interrupted.

    Our other callbacks bring it along; a Trainer has one.

    Checkpoints hold torch's random state, so that dropout and shuffling draw what they would have drawn. One written
    inside a batch or a validation, which an exception causes, holds the state from before it, since a resumed run does
    it again. Processes other than the first go on from a state of their own, made from the first's. Metrics are
    as they were, for callbacks that look at a validation's when the epoch ends.

    Loading a checkpoint warns of what it cannot bring back: gradients that were being accumulated, an optimizer step
    taken in part, a last validation, and an update of ``ReduceLROnPlateau``, which Lightning does not come back to.
    """

    _before_batch: dict[str, Tensor] | None = None
    _after_batch: dict[str, Tensor] | None = None
    _stepping = False
    _validated = True  # whether the validation that follows the last batch, if one does, has ended
    _resumed = False
    _metrics: Mapping[str, Tensor] = MappingProxyType({})
    _to_restore: dict[str, Tensor] | None = None
    _saved_between_epochs = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._before_batch, self._after_batch = _random_state(trainer), None
        self._validated = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._stepping = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._before_batch, self._after_batch = None, _random_state(trainer)
        self._stepping = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validated = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        in_batch = batch_is_broken_off(trainer)
        validation_is_due = not in_batch and not self._validated and validation_follows(trainer)
        before = self._before_batch if in_batch else self._after_batch if validation_is_due else None
        lost = []
        if in_batch and self._stepping:
            lost.append("an optimizer step is taken again that may have been taken wholly or in part")
        elif gradients_wait(trainer):
            lost.append("the gradients accumulated since the last optimizer step are gone")
        checkpoint[_KEY] = {
            "random": before or _random_state(trainer),
            "validation_is_due": validation_is_due,
            "lost": lost,
            "metrics": {name: value.detach().clone() for name, value in trainer.callback_metrics.items()},
        }
        _renew_cudnn_dropout(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        load_unrounded(trainer, pl_module, checkpoint)
        if trainer.state.fn != "fit" or _KEY not in checkpoint:
            return
        saved, loops = checkpoint[_KEY], checkpoint["loops"]["fit_loop"]
        settle(loops, saved["validation_is_due"])
        self._to_restore = self._after_batch = saved["random"]
        self._validated = not saved["validation_is_due"]
        self._metrics = saved["metrics"]
        self._resumed = True
        epochs = loops["epoch_progress"]["current"]
        self._saved_between_epochs = epochs["processed"] == epochs["ready"]
        lost = list(saved["lost"])
        if saved["validation_is_due"] and checkpoint["global_step"] == trainer.max_steps:
            lost.append("the validation after the last step is not made; `trainer.validate` makes it")
        if lost:
            rank_zero_warn(
                f"This checkpoint was written where training cannot go on exactly: {'; '.join(lost)}. Where that "
                "matters, resume from one written right after an optimizer step or at the end of an epoch."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A loader draws its shuffle when it is opened. After a checkpoint from between two epochs newer versions of
        # Lightning open the next epoch's before `on_train_start`, and only then; older ones open it again afterwards,
        # like all do after other checkpoints, and when training ends with `max_steps`.
        opened_once = (
            self._saved_between_epochs and hasattr(trainer.fit_loop, "is_resuming") and trainer.max_steps == -1
        )
        self._restore(trainer, keep=not opened_once)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(trainer)
        device = trainer.strategy.root_device
        trainer.callback_metrics.update({name: value.to(device) for name, value in self._metrics.items()})
        plateau = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
        if self._resumed and plateau:
            rank_zero_warn(
                "Lightning leaves out an update of ReduceLROnPlateau when it goes on from a checkpoint: the learning "
                "rate may fall later than in an uninterrupted run. Where that matters, use a scheduler without metric."
            )
        self._resumed, self._metrics = False, {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A fit that never started, as after the learning rate finder, leaves nothing to the next.
        self._to_restore, self._metrics = None, {}

    def _restore(self, trainer: Trainer, keep: bool = False) -> None:
        if self._to_restore is not None:
            _set_random_state(trainer, self._to_restore)
        if not keep:
            self._to_restore = None


def _random_state(trainer: Trainer) -> dict[str, Tensor]:
    device = trainer.strategy.root_device
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _renew_cudnn_dropout(trainer: Trainer) -> None:
    """Let cuDNN's dropout between recurrent layers start anew from torch's random state, as it does in a resumed run.

    cuDNN draws from a state of its own, which cannot be saved; torch makes it anew whenever the random state is set.
    """
    device = trainer.strategy.root_device
    if device.type == "cuda":
        torch.cuda.set_rng_state(torch.cuda.get_rng_state(device), device)


def _set_random_state(trainer: Trainer, state: dict[str, Tensor]) -> None:
    if trainer.global_rank:
        digest = hashlib.blake2b(bytes(state["cpu"].tolist()), digest_size=8).digest()
        torch.manual_seed((int.from_bytes(digest, "little") + trainer.global_rank) % 2**63)
        return
    torch.set_rng_state(state["cpu"].cpu())
    device = trainer.strategy.root_device
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
