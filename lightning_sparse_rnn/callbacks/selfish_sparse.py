"""When the topology of a Lightning run changes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse_rnn.callbacks.base import Callback
from lightning_sparse_rnn.callbacks.compatibility import (
    refuse_endless,
    refuse_optimizer,
    refuse_unsupported,
    warn_of_companions,
)
from lightning_sparse_rnn.callbacks.exact_resume import bring_exact_resume
from lightning_sparse_rnn.callbacks.fit_topology import FitTopology, Origin, trained_parameters
from lightning_sparse_rnn.callbacks.start_table import start_table
from lightning_sparse_rnn.callbacks.step_gradients import StepGradients
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.optim.masked import MaskedSteps
from lightning_sparse_rnn.sparsity import PositionRule, SparseTopology, TopologyUpdate
from lightning_sparse_rnn.sparsity.clock import Moment, UpdateClock
from lightning_sparse_rnn.sparsity.history import record
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.rules.allocation import AllocationRule
from lightning_sparse_rnn.sparsity.rules.initial_scale import InitialScale
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution, ShareRule
from lightning_sparse_rnn.sparsity.rules.schedules import SCHEDULES, PruneRate, Schedule, SparsityRamp
from lightning_sparse_rnn.utilities.lookup import find_rule, path_of
from lightning_sparse_rnn.utilities.trainer_state import limits, logging_step, progress

__all__ = ["SelfishSparseCallback"]


class _Loading(NamedTuple):
    """What a checkpoint is being loaded for: a module, and whether its run goes on."""

    module: weakref.ref[LightningModule]
    resumes: bool


class SelfishSparseCallback(Callback):
    """Trains any LightningModule sparse from its first step, with any optimizer (Liu et al. 2021).

    When a fit starts, the weights are masked. From then on inactive weights are exactly zero after every optimizer
    step, and between epochs the topology is updated: the smallest weights are pruned and as many regrown. The update
    at the end of an epoch is made when the next one begins, so that every checkpoint holds the topology that was
    validated; after the last epoch there is none.

    Args:
        sparsity: share of weights that are zero, in [0, 1).
        allocation, pruning, growth, redistribution, include, exclude, gates, initial_scale, seed: see
            :class:`SparseTopology`.
        prune_rate: share of live weights replaced at the first update, in [0, 1).
        min_prune_rate: the same when training ends, at most ``prune_rate``.
        schedule: how the rate goes from one to the other over all optimizer steps: ``"cosine"``, ``"linear"``,
            ``"cubic"``, ``"constant"``, or a function (or its import path) from the share of training that is done and
            the first and last rate to the rate.
        update_every_n_epochs: epochs between updates. ``None``: the topology stays as it is.
        update_every_n_steps: optimizer steps between updates; where it is given, ``update_every_n_epochs`` counts for
            nothing.
        initial_sparsity: start at this sparsity, at most ``sparsity``, and go from it to ``sparsity`` by pruning more
            than is regrown. ``None``: the sparsity is constant.
        sparsity_schedule: how it goes there, like ``schedule``.
        sparsity_reached_at: share of training, in (0, 1), from which on the sparsity is ``sparsity``.

    Rules that look at gradients get those of the first optimizer step after the update was due: dense, as they are
    before clipping. All sparse parameters must have one there, or, with several optimizers, at the step of their own.
    The update is made before that step is taken.

    A Trainer has one of these: two would mask the same parameters. Where tensors are to be of different densities, pass
    an ``allocation`` of your own, a function from shapes by name and the density to counts by name.

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
        allocation: str | AllocationRule = "uniform",
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
        ramp = None
        find_rule("sparsity_schedule", sparsity_schedule, SCHEDULES)
        if initial_sparsity is not None:
            ramp = SparsityRamp(initial_sparsity, sparsity, sparsity_schedule, sparsity_reached_at)
            if options.rules().chooses_own_count:
                raise ValueError("This pruning rule chooses how many weights go: it cannot go from `initial_sparsity`.")
        self._clock = UpdateClock(
            PruneRate(prune_rate, min_prune_rate, schedule),
            ramp=ramp,
            every_n_epochs=update_every_n_epochs,
            every_n_steps=update_every_n_steps,
        )
        self._fit = FitTopology(options, None if ramp is None else ramp.first)
        self._gradients = StepGradients()
        self._steps: MaskedSteps | None = None  # while a fit goes on
        self._loading: _Loading | None = None  # while a checkpoint is
        self._begins = False  # whether the fit that has started begins a run
        self._batch = 0
        self._global_step = 0
        self._updates: list[dict[str, Any]] = []

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> SelfishSparseCallback:
        """Return a callback that starts a new fit with the topology of a checkpoint: to fine-tune its weights.

        The weights are yours to load, as in ``MyModule.load_from_checkpoint(path, lr=1e-4)``. To go on with the run
        itself, its optimizer and its schedules, pass ``ckpt_path=`` to ``fit`` instead.

        Args:
            path: a checkpoint of a run with this callback.
            options: those of the constructor, but for ``sparsity`` and ``allocation``.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: it is damaged or has no topology, or an option is out of range.
        """
        state = load_checkpoint(path).get("callbacks", {}).get(cls.__qualname__)
        if not state:
            raise ValueError(
                f"Expected a checkpoint of a run with {cls.__qualname__}, got {path}, which has no topology. Where "
                "that is because it was written with `save_weights_only=True`, its non-zero weights are what is left "
                "of it: take them with `allocation='nonzero'`."
            )
        callback = cls(state["options"]["sparsity"], **options)
        callback._fit.load(state["topology"])
        return callback

    def __repr__(self) -> str:
        options = self._fit.options
        given = [
            f"{field.name}={getattr(options, field.name)!r}"
            for field in fields(options)
            if field.name == "sparsity" or getattr(options, field.name) != field.default
        ]
        if self._clock.ramp is not None:
            given.append(f"initial_sparsity={self._clock.ramp.first!r}")
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def topology(self) -> SparseTopology:
        """The live topology.

        Raises:
            RuntimeError: no fit has started yet in this process.
        """
        if self._fit.topology is None:
            raise RuntimeError(
                "The topology is made when a fit starts, in the process that trains: call `trainer.fit` first. A "
                "strategy that spawns processes leaves it in those; their checkpoints have it."
            )
        return self._fit.topology

    @property
    def sparsity_reached(self) -> bool:
        """Whether the weights are as sparse as they are to be; always true without ``initial_sparsity``."""
        if self._clock.ramp is None:
            return not self.topology.awaits_gradients
        return self.topology.live_weights <= round((1.0 - self._clock.ramp.last) * self.topology.total_weights)

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The run's topology updates, oldest first; the first entry is the topology it began with.

        Each is a dict of plain values: ``update`` (its number), the ``epoch`` it comes before, ``step`` (optimizer
        steps so far), ``rate``, and by tensor and gate numbers of weights: ``live``, ``pruned``, ``regrown``, and
        ``explored``: live at any time so far.
        """
        return self._updates

    # ---------------------------------------------------------------------------------------------- saved and copied

    def state_dict(self) -> dict[str, Any]:
        topology = self._fit.state_dict()
        if topology is None:
            return {}
        saved = {"topology": dict(topology), "options": self._made_with(), "updates": list(self._updates)}
        return {**saved, **self._clock.state_dict()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Weights to test do not bring the Trainer's progress along, and neither do they the clock.
        self._loading = _Loading(weakref.ref(pl_module), trainer.state.fn == "fit")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict:
            return
        self._fit.load(state_dict["topology"], self._loading and self._loading.module())
        self._updates = list(state_dict["updates"])
        if self._loading is not None and self._loading.resumes:
            self._clock.load_state_dict(state_dict)
        for name, here in self._made_with().items():
            there = state_dict["options"][name]
            if there != here:
                rank_zero_warn(
                    f"The checkpoint's topology was made with {name}={there!r} and is kept as it is: {name}={here!r} "
                    "of this SelfishSparseCallback has no effect."
                )

    def _made_with(self) -> dict[str, Any]:
        first = self._fit.initial_sparsity
        sparsity = self._fit.options.sparsity if first is None else first
        return {"sparsity": sparsity, "allocation": path_of(self._fit.options.allocation)}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_steps": None, "_loading": None, "_gradients": StepGradients()}

    # ------------------------------------------------------------------------------------------------ start and end

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            refuse_unsupported(self, trainer)
            # The learning rate finder trains in its own `on_fit_start`, and Lightning puts it before all others.
            trainer.callbacks = sorted(trainer.callbacks, key=lambda other: other is not self)  # type: ignore[attr-defined]
        bring_exact_resume(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        resumes = self._loading is not None and self._loading.resumes
        self._loading = None
        origin = self._fit.begin(pl_module, trainer.optimizers)
        self._begins = origin is Origin.NEW or (trainer.global_step == 0 and not resumes)
        self._follow_optimizers(trainer)
        warn_of_companions(self._clock, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        refuse_endless(self._clock, trainer)
        self._fit.rewind()  # the learning rate finder has wound the run back to its start
        if self._begins:
            # Not always from zero: a Trainer may go on with another module, or from the checkpoint of a dense run.
            self._begins = False
            self._gradients.clear()
            self._clock.restart(trainer.current_epoch, trainer.global_step)
            self._updates = [record(self.topology, trainer.current_epoch, self._clock.steps)]
        self._clock.begin(limits(trainer))
        rank_zero_info(start_table(self.topology, pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not self.sparsity_reached:
            aim = self._fit.options.sparsity
            rank_zero_warn(
                f"Training ended at sparsity {self.topology.sparsity:.4g}, short of the {aim:g} asked for: it ended "
                "earlier than its limits said, or had too few updates. Train on from its last checkpoint, give the "
                "Trainer the limit at which it will end, or lower `sparsity_reached_at`."
            )
        elif self._clock.updates and len(self._updates) == 1 and self._clock.steps > self._updates[0]["step"]:
            rank_zero_info(
                "The topology was never updated: training ended before the first update was due, and after the last "
                "epoch there is none. Train for more epochs, or set `update_every_n_steps` to update within them."
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._let_go()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._loading = None
        self._let_go()

    def _follow_optimizers(self, trainer: Trainer) -> None:
        """Have every optimizer masked from now on, and the steps of the first one counted."""
        self._let_go()
        masks = self.topology.masks
        own = [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]
        for optimizer in trainer.optimizers:
            refuse_optimizer(optimizer)
        self._steps = MaskedSteps(
            masks,
            lead=next((parameter for parameter in own if parameter in masks), next(iter(masks))),
            before_step=partial(self._before_step, trainer),
            after_step=self._after_step,
            forgets=self._clock.updates,
        )
        self._steps.attach(trainer.optimizers)

    def _let_go(self) -> None:
        if self._steps is not None:
            self._steps.detach()

    # -------------------------------------------------------------------------------------------------- every batch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.topology.apply_masks()  # another callback may have put weights back that were saved under other masks
        self._batch = 0
        self._clock.share_done(self._moment(trainer))
        self._update_if_due(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert self._steps is not None
        self._batch, self._global_step = batch_idx, trainer.global_step
        if self._fit.follow(pl_module):
            self._follow_optimizers(trainer)
        # Also due here when updates go by steps, and when a resumed run begins in an epoch whose start it skips.
        self._update_if_due(trainer)
        self._steps.begin_batch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._steps is not None
        if self._fit.follow(pl_module):
            self._follow_optimizers(trainer)
        unseen = self._steps.end_batch()
        if unseen and (not pl_module.automatic_optimization or trainer.global_step > self._global_step):
            self._clock.count_step()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and self._steps is not None:
            self._steps.enforce()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._before_step(trainer, optimizer)

    def _before_step(self, trainer: Trainer, optimizer: Optimizer) -> None:
        if not self._clock.due and not self.topology.awaits_gradients:
            return
        gradients = self._gradients.gather(
            self.topology.parameters,
            trained_parameters([optimizer]),
            self._trained(trainer),
            finite=getattr(trainer.precision_plugin, "scaler", None) is not None,
        )
        if gradients is None:
            return
        if self.topology.awaits_gradients:
            self.topology.allocate(gradients)
            self._hand_over(born={})
            self._updates = [record(self.topology, trainer.current_epoch, self._clock.steps)]
        if self._clock.due:
            self._update(trainer, gradients)

    def _after_step(self, optimizer: Optimizer, counts: bool) -> None:
        if counts:
            self._clock.count_step()
        if "momenta" in self.topology.needs:
            # After the step and not before, since mixed precision leaves steps out; gradients are as they were clipped.
            self.topology.observe(p for group in optimizer.param_groups for p in group["params"])

    # ------------------------------------------------------------------------------------------------------ updates

    def _update_if_due(self, trainer: Trainer) -> None:
        if self._clock.tick(trainer.current_epoch):
            self._gradients.check_all_came()
            if "gradients" not in self.topology.needs and not self.topology.awaits_gradients:
                self._update(trainer, None)

    def _update(self, trainer: Trainer, gradients: Mapping[Tensor, Tensor] | None) -> None:
        moment = self._moment(trainer)
        update = self.topology.update(
            self._clock.rate(moment),
            density=self._clock.density(moment, self.topology.sparsity),
            gradients=gradients,
            trained=self._moving(trainer) if gradients is None else list(gradients),
        )
        self._clock.updated()
        self._hand_over(update.born)
        self._updates.append(record(self.topology, trainer.current_epoch, self._clock.steps, update))
        self._log(trainer, update)

    def _hand_over(self, born: Mapping[Tensor, Tensor]) -> None:
        assert self._steps is not None
        self._steps.hand_over(self.topology.masks, born)

    def _moment(self, trainer: Trainer) -> Moment:
        return Moment(*progress(trainer, self._clock.steps, self._batch, self._clock.within_epochs))

    def _trained(self, trainer: Trainer) -> set[Tensor]:
        """What any optimizer steps, also one inside another."""
        assert self._steps is not None
        return trained_parameters([*trainer.optimizers, *self._steps.optimizers])

    def _moving(self, trainer: Trainer) -> list[Tensor]:
        """What has been stepped since the last update, or could be now: a parameter may be switched off in turns."""
        assert self._steps is not None
        stepped = self._steps.take_stepped()
        return [parameter for parameter in self._trained(trainer) if parameter in stepped or parameter.requires_grad]

    def _log(self, trainer: Trainer, update: TopologyUpdate) -> None:
        """Log to the run's loggers directly: at the step of the update, with exact counts."""
        metrics: dict[str, float] = {
            "epoch": trainer.current_epoch,
            "sparsity/prune_rate": update.rate,
            "sparsity/live_weights": self.topology.live_weights,
            "sparsity/share_replaced": update.replaced,
        }
        for tensor, gates in self.topology.gate_densities().items():
            metrics.update({f"density/{tensor}/{gate}": density for gate, density in gates.items()})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=logging_step(trainer))
