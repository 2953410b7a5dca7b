"""When averaged weights come into play in a Lightning run."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.hooks import RemovableHandle

from lightning_sparse_rnn.callbacks.averaged_state import AveragedStateDict, averaged, averages, revision, sntasgds
from lightning_sparse_rnn.callbacks.base import Callback
from lightning_sparse_rnn.callbacks.compatibility import refuse_unsupported
from lightning_sparse_rnn.callbacks.exact_resume import bring_exact_resume, load_unrounded
from lightning_sparse_rnn.callbacks.running_statistics import RunningStatistics, layers_with_statistics
from lightning_sparse_rnn.utilities.checks import check_whole, is_whole
from lightning_sparse_rnn.utilities.counting import ordinal
from lightning_sparse_rnn.utilities.epochs import epoch_at

__all__ = ["NonMonotonicAveraging"]

_KEY = "lightning_sparse_rnn.training_weights"
_STATISTICS_KEY = "lightning_sparse_rnn.training_statistics"


class NonMonotonicAveraging(Callback):
    """Feeds the trigger of every :class:`SNTASGD` of the run, and lets validation, tests and checkpoints see ŵ.

    After each validation ``monitor`` goes to the optimizers' trigger. Once averaging runs, validation sees the averaged
    weights, every checkpoint's ``state_dict`` holds them, and they are what the module has when training ends;
    training itself goes on with its own weights, which checkpoints carry beside. In a checkpoint written with
    ``save_weights_only=True`` there are the averaged weights alone.

    Args:
        monitor: name of a validation metric.
        restart_epochs: epochs (counted from 0) at whose start a new averaging phase begins, with a cleared history.
        restart_at: the same as shares of ``trainer.max_epochs``, each in (0, 1) and rounded to a whole epoch of at
            least 1: ``[2 / 3]`` is epoch 12 of 18 and epoch 4 of 6. Both may be given.
        mode: ``"min"`` if ``monitor`` falls as the model improves, ``"max"`` if it rises. The trigger of the
            optimizers then sees, and its history holds, the metric with its sign turned.
        update_statistics: whether running statistics of batch normalisation are computed anew for ŵ, as torch's
            ``update_bn`` does; ``False`` leaves ŵ beside the statistics of w, and warns of it. ``True`` costs one
            pass over the training data, without gradients, for each validation of averages, for the end of training,
            and for each checkpoint that is written elsewhere; a whole number takes so many batches instead. They go
            through ``training_step``, so it is for automatic optimization. In training w has its own statistics.

    Raises:
        ValueError: an argument is out of its range.
        MisconfigurationException: when training starts, if there is no :class:`SNTASGD`, if the run has a callback or
            a strategy that averaged weights do not go with, or if ``restart_at`` is given and the Trainer has no
            ``max_epochs``; after the first validation, if ``monitor`` was not logged.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> from lightning_sparse_rnn import NonMonotonicAveraging
        >>> averaging = NonMonotonicAveraging("val_loss", restart_at=[2 / 3])
        >>> trainer = Trainer(max_epochs=18, callbacks=[averaging], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        restart_epochs: Sequence[int] = (),
        *,
        restart_at: Sequence[float] = (),
        mode: str = "min",
        update_statistics: bool | int = False,
    ) -> None:
        if isinstance(restart_epochs, (int, str)):
            raise ValueError(f"Expected `restart_epochs` as a list of epochs, such as [30], got {restart_epochs!r}.")
        if not all(map(is_whole, restart_epochs)):
            raise ValueError(
                f"Expected `restart_epochs` to be whole numbers of at least 1, got {list(restart_epochs)}."
            )
        if isinstance(restart_at, (Real, str)):
            raise ValueError(
                "Expected `restart_at` as a list of shares of `trainer.max_epochs`, such as [0.667], got "
                f"{restart_at!r}."
            )
        if not all(isinstance(share, Real) and 0 < share < 1 for share in restart_at):
            raise ValueError(
                "Expected `restart_at` to be shares of `trainer.max_epochs` between 0 and 1, got "
                f"{list(restart_at)}. Epochs go into `restart_epochs`."
            )
        if mode not in ("min", "max"):
            raise ValueError(f"Expected `mode` to be 'min' or 'max', got {mode!r}.")
        if not isinstance(update_statistics, bool):
            check_whole(update_statistics=update_statistics)
        self.monitor = monitor
        self.restart_epochs = tuple(sorted(int(epoch) for epoch in restart_epochs))
        self.restart_at = tuple(sorted(float(share) for share in restart_at))
        self.mode = mode
        self.update_statistics = update_statistics
        self._statistics: RunningStatistics | None = None
        self._began_epoch: int | None = None
        self._validates_averages = False
        self._restarted = 0  # the epoch up to which all restarts have been made; none is due at epoch 0
        self._handle: RemovableHandle | None = None

    @property
    def began_epoch(self) -> int | None:
        """The epoch (counted from 0) in which averaging first began, or ``None`` if it has not.

        Where the trigger fires in the validation at an epoch's end, the averages are first validated in the next epoch.
        """
        return self._began_epoch

    @property
    def validates_averages(self) -> bool:
        """Whether the last validation of training was one of averaged weights."""
        return self._validates_averages

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no hook in any module.
        return {**super().__getstate__(), "_handle": None, "_statistics": None}

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "began_epoch": self._began_epoch,
            "validates_averages": self._validates_averages,
            "restarted": self._restarted,
        }
        if self._statistics is not None:
            state["evaluating"] = list(self._statistics.evaluating)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._began_epoch = state_dict["began_epoch"]
        self._validates_averages = state_dict["validates_averages"]
        if "restarted" in state_dict:
            self._restarted = state_dict["restarted"]
        else:  # saved when there were only `restart_epochs`, as how many of them were over
            over = self.restart_epochs[: state_dict["restarts"]]
            self._restarted = max(over, default=0)
        if self._statistics is not None:  # checkpoints of earlier versions do not tell
            self._statistics.evaluating = list(state_dict.get("evaluating", []))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        bring_exact_resume(trainer)
        if stage != "fit":
            return
        refuse_unsupported(self, trainer)
        self._remove_hook()
        self._statistics = None
        if self.update_statistics is not False and layers_with_statistics(pl_module):
            self._statistics = RunningStatistics(trainer, pl_module, self.update_statistics)
        hook = AveragedStateDict(trainer, pl_module, self._statistics)
        self._handle = pl_module.register_state_dict_post_hook(hook)
        hooks: Any = pl_module._state_dict_hooks  # an OrderedDict, typed as a dict
        hooks.move_to_end(self._handle.id, last=False)  # so that hooks of the module's own see ŵ

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove_hook()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not list(sntasgds(trainer)):
            found = ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers) or "none"
            raise MisconfigurationException(
                f"NonMonotonicAveraging expects an SNTASGD among the optimizers, got {found}. Return one from "
                "`configure_optimizers`, or leave the callback out."
            )
        self._restarts(trainer)  # raises before time is lost
        if self._statistics is not None and not pl_module.automatic_optimization:
            raise MisconfigurationException(
                "NonMonotonicAveraging(update_statistics=...) sends batches through `training_step`, which in manual "
                "optimization takes steps. Leave it out, or use automatic optimization."
            )
        if self.update_statistics is False and (layers := layers_with_statistics(pl_module)):
            rank_zero_warn(
                f"Averaged weights will be validated with the running statistics of the weights that are trained, in "
                f"{', '.join(layers)}. NonMonotonicAveraging(update_statistics=True) computes them for the averages, "
                "in one pass over the training data for each validation; a whole number takes so many batches."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not any(optimizer.averaging for optimizer in sntasgds(trainer)):
            self._began_epoch, self._validates_averages = None, False  # a new fit has new optimizers
        if trainer.current_epoch == 0:
            self._restarted = 0
        if not trainer.enable_validation:
            rank_zero_warn(
                f"NonMonotonicAveraging waits for {self.monitor!r} after validations, and this run has none: the "
                "trigger never fires. Give the Trainer validation data."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart_if_due(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Also due here when a resumed run begins in an epoch whose start it skips.
        self._restart_if_due(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._statistics is not None:
            self._statistics.note_modes()

    def _restart_if_due(self, trainer: Trainer) -> None:
        due = [epoch for epoch in self._restarts(trainer) if self._restarted < epoch <= trainer.current_epoch]
        if not due:
            return
        self._restarted = max(due)
        for optimizer in sntasgds(trainer):
            optimizer.restart()
        if self._began_epoch is None:
            self._began_epoch = trainer.current_epoch

    def _restarts(self, trainer: Trainer) -> list[int]:
        """The epochs at whose start a new phase begins, in the run as the Trainer plans it now."""
        epochs = trainer.max_epochs
        if self.restart_at and (epochs is None or epochs < 1):
            raise MisconfigurationException(
                "NonMonotonicAveraging(restart_at=...) takes shares of `trainer.max_epochs`, and this Trainer has "
                "none. Set `max_epochs`, or give `restart_epochs`."
            )
        return [*self.restart_epochs, *(epoch_at(share, epochs or 0) for share in self.restart_at)]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _training_goes_on(trainer):
            self._validates_averages = any(optimizer.averaging for optimizer in sntasgds(trainer))
            self._show_averaged_weights(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _training_goes_on(trainer):
            return
        self._show_training_weights(trainer)
        metric = self._metric(trainer)
        for optimizer in sntasgds(trainer):
            if optimizer.observe(metric if self.mode == "min" else -metric):
                if self._began_epoch is None:
                    self._began_epoch = trainer.current_epoch
                rank_zero_info(
                    f"In the {ordinal(trainer.current_epoch + 1)} epoch {self.monitor} {metric:.4f} is worse than the "
                    "best of all but the last validations. Averaging begins."
                )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._show_training_weights(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show_averaged_weights(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_end(trainer, pl_module)  # which Lightning leaves out when it resumes a run that was at its end

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = {
            name: optimizer.training(parameter, copy=False)
            for name, optimizer, parameter in averaged(trainer, pl_module, remove_duplicate=True)
        }
        if self._statistics is not None:
            checkpoint[_STATISTICS_KEY] = self._statistics.training()
        # Tensors that share memory are written once: ŵ here is, where it can be, the mean among the optimizer's states.
        # What a hook of the module's own has made of it stays as it is.
        for name, average in averages(trainer, pl_module, copy=False).items():
            if _is_same(checkpoint["state_dict"].get(name), average):
                checkpoint["state_dict"][name] = average

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        load_unrounded(trainer, pl_module, checkpoint)
        if trainer.state.fn != "fit":
            return
        parameters = dict(pl_module.named_parameters())
        training = checkpoint.get(_KEY, {})
        if gone := [name for name in training if name not in parameters]:
            raise MisconfigurationException(
                f"The checkpoint has averages of {', '.join(gone)}, which {type(pl_module).__name__} has not. Its run "
                "goes on with a module of the same parameters. For another one, load the weights that fit and begin "
                "anew, without `ckpt_path`."
            )
        with torch.no_grad():
            for name, weight in training.items():
                parameters[name].copy_(weight)
        if self._statistics is not None and _STATISTICS_KEY in checkpoint:
            self._statistics.load_training(checkpoint[_STATISTICS_KEY])

    def _metric(self, trainer: Trainer) -> float:
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise MisconfigurationException(
                f"NonMonotonicAveraging(monitor={self.monitor!r}) found no such metric after validation. Logged: "
                f"{', '.join(sorted(metrics)) or 'nothing'}. Log it with `self.log({self.monitor!r}, ...)` in "
                "`validation_step`, or set `monitor` to one of these."
            )
        # Ranks may have logged different values; all must come to the same decision.
        return float(trainer.strategy.broadcast(float(metrics[self.monitor])))

    def _show_averaged_weights(self, trainer: Trainer) -> None:
        for optimizer in sntasgds(trainer):
            optimizer.show_averaged_weights()
        if self._statistics is not None and any(optimizer.averaging for optimizer in sntasgds(trainer)):
            self._statistics.show(revision(trainer))

    def _show_training_weights(self, trainer: Trainer) -> None:
        if self._statistics is not None:
            self._statistics.put_back()
        for optimizer in sntasgds(trainer):
            optimizer.show_training_weights()

    def _remove_hook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def _training_goes_on(trainer: Trainer) -> bool:
    """Whether this validation is part of a fit, and not its sanity check."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _is_same(value: Any, average: torch.Tensor) -> bool:
    """Whether a value of a ``state_dict`` is ŵ, and nothing made of it."""
    if not isinstance(value, torch.Tensor) or (value.dtype, value.device) != (average.dtype, average.device):
        return False
    return torch.equal(value, average)
