"""What the optimizers of a fit do to the sparse parameters: steps to count, gradients to look at, masks to apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse_rnn.callbacks.compatibility import refuse_optimizer
from lightning_sparse_rnn.callbacks.step_gradients import StepGradients
from lightning_sparse_rnn.optim.masked import MaskedSteps, trained_parameters
from lightning_sparse_rnn.sparsity import SparseTopology

__all__ = ["FitSteps", "NoSteps"]

# So many parameters are named in a message.
_NAMED = 5


class FitSteps:
    """Follows the optimizers of one fit, from when it is made to :meth:`end`.

    Args:
        trainer: the one that fits.
        topology: its parameters are masked.
        count: called for each optimizer step; of several optimizers for those of the first that has sparse parameters.
        before_step: called with an optimizer whose gradients are there, before it steps with them.
        forgets: whether the topology changes, so that optimizers have to forget weights.
        pending: what there is for the next update, as :meth:`pending` returned it. Where it does not say what has been
            stepped since the last one, nobody knows.

    Raises:
        MisconfigurationException: sparse training does not go with one of the optimizers.
    """

    def __init__(
        self,
        trainer: Trainer,
        topology: SparseTopology,
        count: Callable[[], None],
        before_step: Callable[[Trainer, Optimizer], None],
        *,
        forgets: bool,
        pending: Mapping[str, Any],
    ) -> None:
        for optimizer in trainer.optimizers:
            refuse_optimizer(optimizer)
        masks = topology.masks
        own = [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]
        self._trainer, self._topology, self._count = trainer, topology, count
        self._gradients = StepGradients()
        self._global_step = trainer.global_step
        self._told = False  # of what has no gradient
        self._just_born: list[tuple[Tensor, Tensor]] = []  # in what was trained at an update, until its next step
        self._masked = MaskedSteps(
            masks,
            lead=next((parameter for parameter in own if parameter in masks), next(iter(masks))),
            before_step=lambda optimizer: before_step(trainer, optimizer),
            after_step=self._after_step,
            forgets=forgets,
        )
        self._masked.attach(trainer.optimizers)
        since: Mapping[str, Sequence[str]] | None = pending.get("since_update")
        self._knows = since is not None  # of all that has been done since the last update
        for kind, names in (since or {}).items():
            getattr(self._masked.since, kind).update(topology.parameters[name] for name in names)
        if gradients := pending.get("gradients"):
            self._gradients.load(gradients, topology.parameters)

    def end(self) -> None:
        """Let the optimizers go."""
        self._warn_of_frozen()
        self._masked.detach()

    def begin_batch(self) -> None:
        """Mask what was changed since the last batch."""
        self._global_step = self._trainer.global_step
        self._masked.begin_batch()

    def end_batch(self, waits: bool) -> None:
        """Mask what was changed in this batch, and count the step that torch did not tell of.

        Args:
            waits: whether an update waits for the gradients of a step.

        Raises:
            MisconfigurationException: it does, and steps are of a kind that nobody sees coming.
        """
        by_hand = not self._trainer.lightning_module.automatic_optimization
        if not self._masked.end_batch() or not (by_hand or self._trainer.global_step > self._global_step):
            return
        if waits:
            raise MisconfigurationException(
                "The rules of this sparse training look at the gradients of an optimizer step, and weights change "
                "though no optimizer of torch has stepped. Call the `step` of an optimizer, or take rules that look at "
                "weights alone, as growth='random' does."
            )
        self._count()

    def enforce(self) -> None:
        """Mask everything before it is validated or saved, also what was written through ``.data``."""
        self._topology.apply_masks()

    def hand_over(self, born: Mapping[Tensor, Tensor]) -> None:
        """Tell the optimizers of the topology's new masks, and of what has just been regrown."""
        self._masked.hand_over(self._topology.masks, born)
        self._just_born = [(parameter, regrown) for parameter, regrown in born.items() if parameter.requires_grad]

    def looked(self, optimizer: Optimizer) -> None:
        """Take note that the gradients have been looked at that an optimizer steps with."""
        self._masked.looked(optimizer)

    def due(self) -> None:
        """Take note that another update has become due; raise if the last one still waits for some gradients."""
        self._gradients.check_all_came()
        self._warn_of_frozen()

    def gradients(self, optimizer: Optimizer) -> dict[Tensor, Tensor] | None:
        """Take the gradients with which an optimizer is about to step; return all there are to be once they are."""
        return self._gradients.gather(
            self._topology.parameters,
            trained_parameters([optimizer]),
            trained_parameters(self._optimizers()),
            finite=getattr(self._trainer.precision_plugin, "scaler", None) is not None,
        )

    def pending(self) -> dict[str, Any]:
        """Return what there is for the next update: gradients that wait for others, and what has been stepped."""
        return {"gradients": self._gradients.saved(self._topology.parameters), "since_update": self.since_update()}

    def since_update(self) -> dict[str, list[str]] | None:
        """Return what optimizers have done since the last update, by name; ``None`` if that is not known."""
        if not self._knows:
            return None
        named = self._topology.parameters.items()
        return {kind: [name for name, p in named if p in found] for kind, found in vars(self._masked.since).items()}

    def trained(self) -> list[Tensor]:
        """Return what has been stepped since the last update, but for what was frozen for good after its step.

        What no gradient has reached would be pruned and could not learn again what it lost. Where steps are taken that
        torch does not tell of, or have been before this was made, it is all that could be stepped now.
        """
        since = self._masked.take_since()
        knows, self._knows = self._knows and (self._masked.follows or bool(since.stepped)), True
        stepped = trained_parameters(self._optimizers())
        if knows:
            return [p for p in stepped & since.stepped if p.requires_grad or p in since.in_turns]
        return [p for p in stepped if p.requires_grad or p in since.stepped]

    def warn_of_unreached(self) -> None:
        """Warn, once, of what is sparse and is stepped without ever a gradient."""
        unreached = self._masked.without_gradient
        if unreached and not self._told:
            self._told = True
            names = [name for name, parameter in self._topology.parameters.items() if parameter in unreached]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            rank_zero_warn(
                f"No gradient has reached {', '.join(names[:_NAMED])}{more}: masked with a topology of their own, and "
                "not pruned or regrown as long as that is so. Copies of other weights, such as averages, would come "
                "apart from them: leave them dense with `exclude`, or set `requires_grad_(False)` before the optimizer "
                "is made."
            )

    def _warn_of_frozen(self) -> None:
        """Warn of what has not had a step since an update and is frozen: by hooks of the same moment, after ours."""
        frozen = {p for p, regrown in self._just_born if not p.requires_grad and bool(regrown.any())}
        self._just_born = []
        if frozen:
            names = ", ".join(name for name, parameter in self._topology.parameters.items() if parameter in frozen)
            rank_zero_warn(
                f"{names}: frozen right after a topology update, so that what it regrew there stays zero. Freeze at "
                "the end of an epoch, in `on_train_epoch_end`: then topology and weights stay as they are."
            )

    def _optimizers(self) -> list[Optimizer]:
        return [*self._trainer.optimizers, *self._masked.optimizers]

    def _after_step(self, optimizer: Optimizer, counts: bool) -> None:
        self._just_born = [
            (parameter, regrown) for parameter, regrown in self._just_born if not parameter.requires_grad
        ]
        if counts:
            self._count()
        if "momenta" in self._topology.needs:
            # After the step and not before, since mixed precision leaves steps out; gradients are as they were clipped.
            self._topology.observe(trained_parameters([optimizer]))


class NoSteps(FitSteps):
    """Before the first fit: nothing is followed."""

    def __init__(self) -> None:
        pass

    def end(self) -> None:
        """There is nothing to end."""

    def enforce(self) -> None:
        """There is nothing to mask."""

    def pending(self) -> dict[str, Any]:
        """There is nothing."""
        return {}
