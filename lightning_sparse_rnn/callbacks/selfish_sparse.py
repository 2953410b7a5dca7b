"""When the topology of a Lightning run changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse_rnn.callbacks.averaged_state import sntasgds
from lightning_sparse_rnn.callbacks.base import Callback
from lightning_sparse_rnn.callbacks.compatibility import refuse_endless, refuse_unsupported, warn_of_companions
from lightning_sparse_rnn.callbacks.exact_resume import bring_exact_resume
from lightning_sparse_rnn.callbacks.fit_steps import FitSteps, NoSteps
from lightning_sparse_rnn.callbacks.fit_topology import FitTopology, saved_sparsity, saved_state
from lightning_sparse_rnn.callbacks.messages import described, log_sparsity, log_update, start_table, tell_end
from lightning_sparse_rnn.sparsity import SparseTopology
from lightning_sparse_rnn.sparsity.clock import Moment, UpdateClock
from lightning_sparse_rnn.sparsity.history import record
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.rules.contract import AllocationRule, InitialScale, PositionRule, ShareRule
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution
from lightning_sparse_rnn.sparsity.rules.schedules import PruneRate, Schedule, SparsityRamp
from lightning_sparse_rnn.utilities.trainer_state import length, limits, progress

__all__ = ["SelfishSparseCallback"]

# What a topology that is there already has no use for.
_OF_NEW = ("sparsity", "allocation", "initial_sparsity", "initial_scale")


class SelfishSparseCallback(Callback):
    """Trains any LightningModule sparse from its first step, with any optimizer (Liu et al. 2021).

    When a fit starts, the weights are masked. From then on inactive weights are exactly zero after every optimizer
    step, and between epochs the topology is updated: the smallest weights are pruned and as many regrown. The update
    at the end of an epoch is made when the next one begins, so that every checkpoint holds the topology that was
    validated; after the last epoch there is none.

    Args:
        sparsity: share of weights that are zero, in [0, 1).
        allocation, pruning, growth, redistribution, include, exclude, gates, initial_scale, seed: see
            :class:`~lightning_sparse_rnn.sparsity.TopologyOptions`.
        prune_rate: share of live weights replaced at the first update, in [0, 1).
        min_prune_rate: the same when training ends, at most ``prune_rate``.
        schedule: how the rate goes from one to the other over all optimizer steps: ``"cosine"``, ``"linear"``,
            ``"cubic"``, ``"constant"``, or a function of the share of training done, the first and the last rate.
        update_every_n_epochs: epochs between updates. ``None``: the topology stays as it is.
        update_every_n_steps: optimizer steps between updates, instead of epochs.
        initial_sparsity: start at this sparsity, and prune more than is regrown until ``sparsity``. ``None``: constant.
        sparsity_schedule: how it goes there, like ``schedule``.
        sparsity_reached_at: share of training, in (0, 1), from which on the sparsity is ``sparsity``.

    Rules that look at gradients get those of the first optimizer step after the update was due: dense, as they are
    before clipping. All sparse parameters must have one there, or, with several optimizers, at the step of their own.
    The update is made before that step is taken.

    A Trainer has one of these; ``allocation`` takes different densities for different parameters.

    Raises:
        ValueError: an option is out of range or unknown.
        MisconfigurationException: when training starts, if its end is unknown to the schedule, or the run has a
            callback or a strategy that sparse training does not go with.

    Example:
        >>> import pytorch_lightning as pl
        >>> sparse = SelfishSparseCallback(sparsity=0.9, update_every_n_steps=100)
        >>> trainer = pl.Trainer(callbacks=[sparse], max_epochs=3, logger=False, enable_checkpointing=False)
        >>> sparse
        SelfishSparseCallback(sparsity=0.9)
    """

    def __init__(
        self,
        sparsity: float = 0.67,
        *,
        allocation: str | AllocationRule | Mapping[str, float] = "uniform",
        pruning: str | PositionRule = "magnitude",
        growth: str | PositionRule | None = "random",
        redistribution: str | ShareRule | Redistribution = "gates",
        prune_rate: float = 0.5,
        min_prune_rate: float = 0.005,
        schedule: str | Schedule = "cosine",
        update_every_n_epochs: int | None = 1,
        update_every_n_steps: int | None = None,
        initial_sparsity: float | None = None,
        sparsity_schedule: str | Schedule = "cubic",
        sparsity_reached_at: float = 0.75,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        gates: Mapping[str, Sequence[str] | Mapping[str, int]] | None = None,
        initial_scale: str | InitialScale = "none",
        seed: int = 0,
    ) -> None:
        options = TopologyOptions(
            sparsity, allocation, pruning, growth, redistribution, include, exclude, gates, initial_scale, seed
        )
        ramp = SparsityRamp.optional(initial_sparsity, sparsity, sparsity_schedule, sparsity_reached_at)
        if ramp is not None and options.rules().chooses_own_count:
            raise ValueError("This pruning rule chooses how many weights go: it cannot go from `initial_sparsity`.")
        rate = PruneRate(prune_rate, min_prune_rate, schedule)
        every = {"every_n_epochs": update_every_n_epochs, "every_n_steps": update_every_n_steps}
        self._clock = UpdateClock(rate, ramp=ramp, **every)
        self._fit = FitTopology(options, ramp.first if ramp else None)
        self._steps: FitSteps = NoSteps()  # of the fit that goes on
        self._begins = False  # whether the fit that has started begins a run
        self._pending: dict[str, Any] = {}  # for the next update of a run that does not go on at the moment
        self._batch = 0  # of its epoch, the one that is trained on

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, weights_only: bool = True, **options: Any) -> SelfishSparseCallback:
        """Return a callback that starts a new fit with the topology of a checkpoint: to fine-tune its weights.

        It has the sparsity of that topology from the first step to the last, also where the checkpoint is of a run with
        ``initial_sparsity`` that was on its way to another.

        The weights are yours to load, as in ``MyModule.load_from_checkpoint(path, lr=1e-4)``. To go on with the run
        itself, its optimizer and its schedules, pass ``ckpt_path=`` to ``fit`` instead.

        Args:
            path: a checkpoint of a run with this callback.
            weights_only: ``False`` reads a checkpoint that holds other objects than tensors and plain values, such as
                paths among the hyperparameters. That runs any code the file holds: only for files that you trust.
            options: those of the constructor, but for what says how a new topology begins: ``sparsity``,
                ``allocation``, ``initial_sparsity`` and ``initial_scale``.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: it is damaged or has no topology, or an option is out of range, or one of these.
        """
        if of_new := [name for name in _OF_NEW if name in options]:
            raise ValueError(
                f"Expected no `{of_new[0]}`: the topology is that of the checkpoint, with as many live weights. For a "
                f"new one, draw it with SelfishSparseCallback({of_new[0]}=...)."
            )
        state = saved_state(path, cls.__qualname__, weights_only=weights_only)
        callback = cls(saved_sparsity(state), **options)
        callback._fit.load(state["topology"])
        return callback

    def __repr__(self) -> str:
        options = described(self._fit.options, initial_sparsity=self._fit.initial_sparsity)
        topology = self._fit.topology
        return f"{type(self).__name__}({options}{'' if topology is None else f', topology={topology!r}'})"

    @property
    def topology(self) -> SparseTopology:
        """The live topology.

        After ``trainer.test(module, ckpt_path=...)`` or ``validate``, of the module that was fitted, it is the
        checkpoint's, as the weights are. After that of another module it is still the fit's.

        Raises:
            RuntimeError: no fit has started yet in this process.
        """
        return self._fit.made

    @property
    def sparsity_reached(self) -> bool:
        """Whether the weights are as sparse as they are to be; always true without ``initial_sparsity``."""
        return self._fit.reached

    def will_reach_sparsity(self, trainer: Trainer) -> bool:
        """Return whether the run that ``trainer`` begins now has an update after which its weights are sparse enough.

        It is true as well where nobody can know: with ``max_time``, loaders without a length, and of runs that go on.
        """
        ramp, known = self._clock.ramp, length(trainer)
        if ramp is None or known is None or self._clock.steps or self.sparsity_reached:
            return True
        density = 1.0 - ramp.at(self._clock.last_share(*known))
        return self._fit.enough(round(density * self.topology.total_weights))

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The run's topology updates, oldest first; the first entry is the topology it began with.

        Each is a dict of plain values: ``update`` (its number), the ``epoch`` it comes before, ``step`` (optimizer
        steps so far), ``rate``, and by tensor and gate numbers of weights: ``live``, ``pruned``, ``regrown``, and
        ``explored``: live at any time so far.
        """
        return self._fit.updates

    def state_dict(self) -> dict[str, Any]:
        saved = self._fit.state_dict()
        if saved is None:
            return {}
        saved["options"] = self._fit.made_with()
        return {**saved, **self._clock.state_dict(), **(self._steps.pending() or self._pending)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._fit.expect(pl_module, resumes=trainer.state.fn == "fit")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._steps.enforce()  # in place: the checkpoint's `state_dict` has the parameters' own memory

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict:
            return
        if self._fit.load(state_dict["topology"], state_dict["updates"]):
            self._clock.load_state_dict(state_dict)
            self._pending = {name: state_dict[name] for name in ("gradients", "since_update") if name in state_dict}
        self._fit.warn_of_other(state_dict["options"])

    def __getstate__(self) -> dict[str, Any]:
        # `copy.copy` shares what is in here: a copy is to go its own way from now on.
        own = {"_fit": copy.copy(self._fit), "_clock": copy.copy(self._clock)}
        return {**super().__getstate__(), **own, "_steps": NoSteps()}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            refuse_unsupported(self, trainer)
            # The learning rate finder trains in its own `on_fit_start`, and Lightning puts it before all others.
            trainer.callbacks = sorted(trainer.callbacks, key=lambda other: other is not self)  # type: ignore[attr-defined]
        bring_exact_resume(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in sntasgds(trainer):  # one that a module keeps shows its averages since the fit before
            optimizer.show_training_weights()
        self._begins = self._fit.begin(pl_module, trainer.optimizers, unstepped=trainer.global_step == 0)
        self._follow(trainer, {"since_update": {}} if self._begins else self._pending)
        warn_of_companions(self._clock, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        refuse_endless(self._clock, trainer)
        self._fit.rewind()  # the learning rate finder has wound the run back to its start
        if self._begins:
            # Not always from zero: a Trainer may go on with another module, or from the checkpoint of a dense run.
            self._begins = False
            self._clock.restart(trainer.current_epoch, trainer.global_step)
            self._fit.updates = [record(self.topology, trainer.current_epoch, self._clock.steps)]
        self._clock.begin(limits(trainer))
        rank_zero_info(start_table(self.topology, pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            moved = len(self._fit.updates) > 1 or not self._clock.updates
            rested = not self._fit.updates or self._clock.steps <= self._fit.updates[0]["step"]
            tell_end(self.topology, None if self.sparsity_reached else self._fit.options.sparsity, moved or rested)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._let_go()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._fit.forget_loading()
        self._let_go()

    def _follow(self, trainer: Trainer, pending: Mapping[str, Any]) -> None:
        """Mask what the optimizers step from now on, and count their steps."""
        self._let_go()
        count, before = self._clock.count_step, self._before_step
        self._steps = FitSteps(trainer, self.topology, count, before, forgets=self._clock.updates, pending=pending)

    def _let_go(self) -> None:
        self._steps.enforce()  # hooks of the module come after ours, and an exception may come before the masks
        self._steps.end()
        self._pending = self._steps.pending() or self._pending
        self._steps = NoSteps()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.topology.apply_masks()  # another callback may have put weights back that were saved under other masks
        self._batch = 0
        self._clock.share_done(self._moment(trainer))  # the end may be another with the loader of this epoch
        self._update_if_due(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch_idx
        if self._fit.follow(pl_module):
            self._follow(trainer, {"since_update": self._steps.since_update()})
        # Also due here when updates go by steps, and when a resumed run begins in an epoch whose start it skips.
        self._update_if_due(trainer)
        self._steps.begin_batch()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        if self._fit.follow(pl_module):
            self._follow(trainer, {"since_update": self._steps.since_update()})
        self._steps.end_batch(waits=self._clock.due or self.topology.awaits_gradients)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.enforce()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0:  # the module's own hooks come after ours, and optimizers that average swap weights in them
            self._steps.enforce()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.enforce()  # for weights that are saved alone, and nobody asks us
        self._steps.warn_of_unreached()
        log_sparsity(trainer, self.topology)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._before_step(trainer, optimizer)
        self._steps.looked(optimizer)

    def _before_step(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Make an update that waited for gradients, once they are there."""
        if not self._clock.due and not self.topology.awaits_gradients:
            return
        gradients = self._steps.gradients(optimizer)
        if gradients is None:
            return
        if self.topology.awaits_gradients:
            self.topology.allocate(gradients)
            self._steps.hand_over(born={})
            self._fit.updates = [record(self.topology, trainer.current_epoch, self._clock.steps)]
        if self._clock.due:
            self._update(trainer, gradients)

    def _update_if_due(self, trainer: Trainer) -> None:
        if self._clock.tick(trainer.current_epoch):
            self._steps.due()
            if "gradients" not in self.topology.needs and not self.topology.awaits_gradients:
                self._update(trainer, None)

    def _update(self, trainer: Trainer, gradients: Mapping[Tensor, Tensor] | None) -> None:
        moment = self._moment(trainer)
        update = self.topology.update(
            self._clock.rate(moment),
            density=self._clock.density(moment, self.topology.sparsity),
            gradients=gradients,
            trained=self._steps.trained() if gradients is None else list(gradients),
        )
        self._clock.updated()
        self._steps.hand_over(update.born)
        self._fit.updates.append(record(self.topology, trainer.current_epoch, self._clock.steps, update))
        log_update(trainer, self.topology, update)

    def _moment(self, trainer: Trainer) -> Moment:
        return Moment(*progress(trainer, self._clock.steps, self._batch, self._clock.within_epochs))
