"""When the topology of a Lightning run changes."""

from __future__ import annotations

import glob
import math
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_sparse_rnn.callbacks.averaging import NonMonotonicAveraging
from lightning_sparse_rnn.callbacks.compatibility import refuse_optimizer, refuse_unsupported
from lightning_sparse_rnn.callbacks.exact_resume import ResumesExactly
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.optim.masked import Masking, forget
from lightning_sparse_rnn.optim.sntasgd import SNTASGD
from lightning_sparse_rnn.sparsity import PositionRule, SparseTopology, TopologyUpdate, sparsifiable_parameters
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.rules.allocation import AllocationRule
from lightning_sparse_rnn.sparsity.rules.contract import InitialScale
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution, ShareRule
from lightning_sparse_rnn.sparsity.rules.schedules import SCHEDULES, PruneRate, Schedule, SparsityRamp
from lightning_sparse_rnn.utilities.lookup import find_rule, path_of
from lightning_sparse_rnn.utilities.trainer_state import ancestors

__all__ = ["SelfishSparseCallback"]


class SelfishSparseCallback(ResumesExactly):
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
    before clipping. All sparse parameters must have one there. The update is made before that step is taken.

    Raises:
        ValueError: an option is out of range or unknown.
        MisconfigurationException: when training starts, if its end is unknown to the schedule, or the run has a
            callback or a strategy that sparse training does not go with.
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
        rules = TopologyOptions(
            sparsity, allocation, pruning, growth, redistribution, gates=gates, initial_scale=initial_scale
        ).rules()
        self._options: dict[str, Any] = {
            "sparsity": float(sparsity if initial_sparsity is None else initial_sparsity),
            "allocation": allocation,
            "pruning": pruning,
            "growth": growth,
            "redistribution": redistribution,
            "include": _plain(include),
            "exclude": _plain(exclude),
            "gates": gates,
            "initial_scale": initial_scale,
            "seed": int(seed),
        }
        self._rate = PruneRate(prune_rate, min_prune_rate, schedule)
        for name, every in (
            ("update_every_n_epochs", update_every_n_epochs),
            ("update_every_n_steps", update_every_n_steps),
        ):
            if every is not None and (int(every) != every or every < 1):
                raise ValueError(f"Expected `{name}` to be a whole number of at least 1 or None, got {every}.")
        find_rule("sparsity_schedule", sparsity_schedule, SCHEDULES)
        self._ramp: SparsityRamp | None = None
        if initial_sparsity is not None:
            self._ramp = SparsityRamp(initial_sparsity, sparsity, sparsity_schedule, sparsity_reached_at)
            if rules.chooses_own_count:
                raise ValueError("This pruning rule chooses how many weights go: it cannot go from `initial_sparsity`.")
            if update_every_n_epochs is None and update_every_n_steps is None:
                raise ValueError(
                    "`initial_sparsity` goes to `sparsity` by updates, and with `update_every_n_epochs=None` there are "
                    "none."
                )
        self._every_n_steps = update_every_n_steps
        self._every_n_epochs = update_every_n_epochs if update_every_n_steps is None else None
        self._topology: SparseTopology | None = None
        self._due = False  # whether an update waits for gradients
        self._saved_topology: Mapping[str, Any] | None = None  # waits for the module it came with, if that is known
        self._saved_for: weakref.ref[LightningModule] | None = None
        self._resuming = False
        self._new_run = False
        self._steps = 0
        self._last_epoch = 0  # the last epoch before which an update was due
        self._last_step = 0  # the last step after which one was due
        self._updates: list[dict[str, Any]] = []
        self._handles: list[RemovableHandle] = []

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, weights_only: bool = True, **options: Any) -> SelfishSparseCallback:
        """Return a callback that starts a new fit with the topology of a checkpoint: to fine-tune its weights.

        The weights are yours to load, as in ``MyModule.load_from_checkpoint(path, lr=1e-4)``. To go on with the run
        itself, its optimizer and its schedules, pass ``ckpt_path=`` to ``fit`` instead.

        Args:
            path: a checkpoint of a run with this callback.
            weights_only: ``False`` reads a checkpoint that holds other objects than tensors and plain values, such as
                paths among the hyperparameters. That runs any code the file holds: only for files that you trust.
            options: those of the constructor, but for ``sparsity`` and ``allocation``.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: it is damaged or has no topology, or an option is out of range.
        """
        state = load_checkpoint(path, weights_only=weights_only).get("callbacks", {}).get(cls.__qualname__)
        if not state:
            raise ValueError(
                f"Expected a checkpoint of a run with {cls.__qualname__}, got {path}, which has no topology. Where "
                "that is because it was written with `save_weights_only=True`, its non-zero weights are what is left "
                "of it: take them with `allocation='nonzero'`."
            )
        callback = cls(state["options"]["sparsity"], **options)
        callback._saved_topology = state["topology"]
        return callback

    @property
    def topology(self) -> SparseTopology:
        """The live topology.

        Raises:
            RuntimeError: no fit has started yet in this process.
        """
        if self._topology is None:
            raise RuntimeError(
                "The topology is made when a fit starts, in the process that trains: call `trainer.fit` first. A "
                "strategy that spawns processes leaves it in those; their checkpoints have it."
            )
        return self._topology

    @property
    def sparsity_reached(self) -> bool:
        """Whether the weights are as sparse as they are to be; always true without ``initial_sparsity``."""
        if self._ramp is None:
            return not self.topology.awaits_gradients
        return self.topology.live_weights <= round((1.0 - self._ramp.last) * self.topology.total_weights)

    @property
    def _moves(self) -> bool:
        return self._every_n_epochs is not None or self._every_n_steps is not None

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
        topology = self._topology_to_save()
        if topology is None:
            return {}
        return {
            "topology": dict(topology),
            "due": self._due,
            "options": self._made_with(),
            "steps": self._steps,
            "last_epoch": self._last_epoch,
            "last_step": self._last_step,
            "updates": list(self._updates),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._resuming = trainer.state.fn == "fit"
        self._saved_for = weakref.ref(pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict:
            return
        self._saved_topology = state_dict["topology"]
        self._updates = list(state_dict["updates"])
        if self._resuming:  # weights to test do not bring the Trainer's progress along either
            self._due = state_dict["due"]
            self._steps = state_dict["steps"]
            self._last_epoch = state_dict["last_epoch"]
            self._last_step = state_dict["last_step"]
        for name, here in self._made_with().items():
            there = state_dict["options"][name]
            if there != here:
                rank_zero_warn(
                    f"The checkpoint's topology was made with {name}={there!r} and is kept as it is: {name}={here!r} "
                    "of this SelfishSparseCallback has no effect."
                )

    def _made_with(self) -> dict[str, Any]:
        return {"sparsity": self._options["sparsity"], "allocation": path_of(self._options["allocation"])}

    def _topology_to_save(self) -> Mapping[str, Any] | None:
        if self._saved_topology is not None or self._topology is None:
            return self._saved_topology
        return self._topology.state_dict()

    def __getstate__(self) -> dict[str, Any]:
        # A copy has the topology as saved, for the module it is to train.
        own = {"_topology": None, "_saved_topology": self._topology_to_save(), "_saved_for": None}
        return {**super().__getstate__(), **own, "_handles": []}

    # ------------------------------------------------------------------------------------------------ start and end

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            refuse_unsupported(self, trainer)
            # The learning rate finder trains in its own `on_fit_start`, and Lightning puts it before all others.
            trainer.callbacks = sorted(trainer.callbacks, key=lambda other: other is not self)  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._check_end_is_known(trainer)
        self._make_topology(trainer, pl_module)
        self._attach(trainer)
        if any(isinstance(optimizer, SNTASGD) for optimizer in trainer.optimizers) and not any(
            isinstance(callback, NonMonotonicAveraging)
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        ):
            rank_zero_warn(
                "SNTASGD starts to average when its trigger fires, and nothing feeds it: add "
                "NonMonotonicAveraging(monitor=...) to the Trainer's callbacks, or call `optimizer.observe(loss)` "
                "after each validation."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._saved_topology is not None:  # the learning rate finder has wound the run back to its start
            self.topology.load_state_dict(self._saved_topology)
            self._saved_topology = None
        if self._new_run:
            # Not always from zero: a Trainer may go on with another module, or from the checkpoint of a dense run.
            self._new_run = self._due = False
            self._steps = self._last_step = trainer.global_step
            self._last_epoch = trainer.current_epoch
            self._updates = [_record(self.topology, trainer.current_epoch, self._steps, update=None)]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._moves and len(self._updates) == 1 and self._steps > self._updates[0]["step"]:
            rank_zero_info(
                "The topology was never updated: training ended before the first update was due, and after the last "
                "epoch there is none. Train for more epochs, or set `update_every_n_steps` to update within them."
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self._resuming = False
        self._detach()

    def _check_end_is_known(self, trainer: Trainer) -> None:
        if not self._moves or trainer.max_epochs != -1 or trainer.max_steps != -1:
            return
        if self._rate.ends:
            raise MisconfigurationException(
                f"The {self._rate.name} schedule of the prune rate ends with the last optimizer step, and this "
                "Trainer has no end: set `max_epochs` or `max_steps`, or take `schedule='constant'`."
            )
        if self._ramp is not None:
            raise MisconfigurationException(
                "The sparsity is to be reached at a share of training, and this Trainer has no end: set `max_epochs` "
                "or `max_steps`."
            )

    def _make_topology(self, trainer: Trainer, module: LightningModule) -> None:
        options = {**self._options, "exclude": self._exclude_untrained(trainer, module)}
        parameters = sparsifiable_parameters(module, options["include"], options["exclude"])
        self._new_run = not self._resuming and trainer.global_step == 0
        self._resuming = False
        if self._saved_for is not None and self._saved_for() is not module:
            self._saved_topology = None  # it came with the weights of another module
        if self._saved_topology is not None:
            self._topology = SparseTopology(module, **options, state=self._saved_topology)
            self._saved_topology = None
        elif self._topology is not None and _is_of(self._topology.parameters, module):
            self._topology.apply_masks()
            if new := [name for name in parameters if name not in self._topology.parameters]:
                rank_zero_warn(
                    f"{', '.join(new)} could not be sparse when the topology was made and stay dense. To make them "
                    "sparse too, train with a new SelfishSparseCallback."
                )
        else:
            if self._options["allocation"] != "nonzero":
                _warn_of_sparse_weights(parameters)
            self._topology = SparseTopology(module, **options)
            self._new_run = True
            if self._options["allocation"] == "nonzero" and not self._topology.sparsity:
                rank_zero_warn(
                    "No weight of this module is zero, so with `allocation='nonzero'` all of them are live, and "
                    "training is dense. For a topology drawn at random, leave `allocation` out."
                )

    def _exclude_untrained(self, trainer: Trainer, module: LightningModule) -> list[str]:
        """Return ``exclude`` with the parameters that no optimizer trains: what were pruned there would be lost."""
        include, exclude = self._options["include"], self._options["exclude"]
        trained = {p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
        parameters = sparsifiable_parameters(module, include, exclude)
        untrained = [name for name, parameter in parameters.items() if parameter not in trained]
        if len(untrained) == len(parameters):
            raise MisconfigurationException(
                "SelfishSparseCallback makes sparse what the Trainer's optimizers train, and they have none of: "
                f"{', '.join(untrained)}. Return an optimizer of these from `configure_optimizers`."
            )
        if untrained:
            rank_zero_warn(
                f"No optimizer trains {', '.join(untrained)}: they stay dense. If they are to stay so, say it with "
                "`exclude`, or freeze them with `requires_grad_(False)`."
            )
        patterns = [exclude] if isinstance(exclude, str) else exclude or []
        return [*patterns, *(glob.escape(name) for name in untrained)]

    def _attach(self, trainer: Trainer) -> None:
        """Hand the masks to the optimizers, and count the steps of the first one that has sparse parameters."""
        self._detach()
        masks = self.topology.masks
        observes = "momenta" in self.topology.needs
        for optimizer in trainer.optimizers:
            own = [p for group in optimizer.param_groups for p in group["params"] if p in masks]
            if not own:
                continue
            refuse_optimizer(optimizer)
            if not self._handles:
                self._handles.append(optimizer.register_step_post_hook(self._count_step))
            if observes:
                self._handles.append(optimizer.register_step_post_hook(self._observe))
            if isinstance(optimizer, SNTASGD):
                optimizer.set_masks(masks)
            else:
                self._handles.append(optimizer.register_step_post_hook(Masking(own, [masks[p] for p in own])))

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _count_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._steps += 1

    def _observe(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # After the step and not before, since mixed precision leaves steps out; gradients are as they were clipped.
        self.topology.observe(p for group in optimizer.param_groups for p in group["params"])

    # ------------------------------------------------------------------------------------------------------ updates

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.topology.apply_masks()  # another callback may have put weights back that were saved under other masks
        self._update_if_due(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        # Also due here when updates go by steps, and when a resumed run begins in an epoch whose start it skips.
        self._update_if_due(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if not self._due and not self.topology.awaits_gradients:
            return
        gradients = self._gradients()
        if not gradients:
            return  # `training_step` has returned None
        scales = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scales and not all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values()):
            return  # mixed precision leaves this step out
        if self.topology.awaits_gradients:
            self.topology.allocate(gradients)
            self._hand_over(trainer, born={})
            self._updates = [_record(self.topology, trainer.current_epoch, self._steps, update=None)]
        if self._due:
            self._update(trainer, gradients)

    def _gradients(self) -> dict[Tensor, Tensor]:
        """Return the dense gradient of each sparse parameter that is trained, or nothing if none has any."""
        trained = {name: p for name, p in self.topology.parameters.items() if p.requires_grad}
        missing = [name for name, parameter in trained.items() if parameter.grad is None]
        if len(missing) == len(trained):
            return {}
        if missing:
            raise MisconfigurationException(
                "The rules of this sparse training look at the gradients of an optimizer step, and these parameters "
                f"have none in it: {', '.join(missing)}. Leave them dense with `exclude`, or take rules that look at "
                "weights alone, as growth='random' does."
            )
        found = {name: p.grad for name, p in trained.items() if p.grad is not None}
        if sparse := [name for name, gradient in found.items() if gradient.is_sparse]:
            raise MisconfigurationException(
                "The rules of this sparse training look at the gradient of every weight, inactive ones too, and these "
                f"parameters have a sparse one: {', '.join(sparse)}. Make the embedding with `sparse=False`."
            )
        return {trained[name]: gradient for name, gradient in found.items()}

    def _update_if_due(self, trainer: Trainer) -> None:
        epoch_over = trainer.current_epoch > self._last_epoch
        self._last_epoch = max(self._last_epoch, trainer.current_epoch)
        if self._every_n_steps is not None:
            due = self._steps - self._last_step >= self._every_n_steps
        else:
            due = self._every_n_epochs is not None and epoch_over and trainer.current_epoch % self._every_n_epochs == 0
        if due:
            self._last_step = self._steps
            self._due = True
            if "gradients" not in self.topology.needs:
                self._update(trainer, None)

    def _update(self, trainer: Trainer, gradients: Mapping[Tensor, Tensor] | None) -> None:
        progress = self._progress(trainer)
        update = self.topology.update(self._rate.at(progress), density=self._density(progress), gradients=gradients)
        self._due = False
        self._hand_over(trainer, update.born)
        self._updates.append(_record(self.topology, trainer.current_epoch, self._steps, update))
        self._log(trainer, update)

    def _hand_over(self, trainer: Trainer, born: Mapping[Tensor, Tensor]) -> None:
        """Tell the optimizers of new masks, and of what has just been regrown."""
        masks = self.topology.masks
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, SNTASGD):
                if any(p in masks for group in optimizer.param_groups for p in group["params"]):
                    optimizer.set_masks(masks, born)
            else:
                forget(optimizer, masks, born)

    def _density(self, progress: float) -> float | None:
        """Return the density that an update is to leave, if it is not the one there is."""
        if self._ramp is None:
            return None
        # The counts it started with are rounded tensor by tensor: the present one may be a few weights below.
        return 1.0 - max(self._ramp.at(progress), self.topology.sparsity)

    def _progress(self, trainer: Trainer) -> float:
        """Share of training that is done, in optimizer steps; by the Trainer's own limits where these are not known."""
        total = -1.0
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        accumulation_changes = any("GradientAccumulationScheduler" in ancestors(other) for other in callbacks)
        if trainer.lightning_module.automatic_optimization and not accumulation_changes:
            total = float(trainer.estimated_stepping_batches)
        if 0 < total < math.inf:
            return min(1.0, self._steps / total)
        limits = ((trainer.current_epoch, trainer.max_epochs), (trainer.global_step, trainer.max_steps))
        return min(1.0, max(done / end if end and end > 0 else 0.0 for done, end in limits))

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
        # The axis of Lightning's own metrics: `global_step` counts the steps of several optimizers together.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)


def _record(topology: SparseTopology, epoch: int, step: int, update: TopologyUpdate | None) -> dict[str, Any]:
    nothing = {name: dict.fromkeys(gates, 0) for name, gates in topology.gate_sizes.items()}
    return {
        "update": 0 if update is None else update.number,
        "epoch": epoch,
        "step": step,
        "rate": 0.0 if update is None else update.rate,
        "live": topology.live_per_gate() if update is None else update.live,
        "explored": topology.explored_per_gate(),
        "pruned": nothing if update is None else update.pruned,
        "regrown": nothing if update is None else update.regrown,
    }


def _is_of(parameters: Mapping[str, nn.Parameter], module: nn.Module) -> bool:
    """Whether these are parameters of ``module``; one may be frozen by now."""
    own = dict(module.named_parameters(remove_duplicate=False))
    return all(own.get(name) is parameter for name, parameter in parameters.items())


def _warn_of_sparse_weights(parameters: Mapping[str, nn.Parameter]) -> None:
    total = sum(parameter.numel() for parameter in parameters.values())
    zero = total - sum(int(torch.count_nonzero(parameter)) for parameter in parameters.values())
    if zero > total / 4:
        rank_zero_warn(
            f"{zero / total:.0%} of the module's weights are zero already, and a new topology is drawn without regard "
            "to which. To keep the topology they have, take `SelfishSparseCallback.from_checkpoint(path)`, which knows "
            "of live weights that are zero as well, or `allocation='nonzero'`, or pass `ckpt_path=` to `fit`."
        )


def _plain(patterns: str | Sequence[str] | None) -> str | list[str] | None:
    return patterns if patterns is None or isinstance(patterns, str) else list(patterns)
