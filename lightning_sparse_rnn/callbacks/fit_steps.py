"""What the optimizers of a fit do to the sparse parameters: steps to count, gradients to look at, masks to apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


class FitSteps:
    """Follows the optimizers of one fit, from when it is made to :meth:`end`.

    Args:
        trainer: the one that fits.
        topology: its parameters are masked.
        count: called for each optimizer step; of several optimizers for those of the first that has sparse parameters.
        before_step: called with an optimizer whose gradients are there, before it steps with them.
        forgets: whether the topology changes, so that optimizers have to forget weights.
        new: whether no step has been taken yet: none that this has not seen.

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
        new: bool,
    ) -> None:
        for optimizer in trainer.optimizers:
            refuse_optimizer(optimizer)
        masks = topology.masks
        own = [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]
        self._trainer, self._topology, self._count = trainer, topology, count
        self._gradients = StepGradients()
        self._global_step = trainer.global_step
        self._from_the_start = new  # of the time until the next update
        self._just_born: list[tuple[Tensor, Tensor]] = []  # in what was trained at an update, until its next step
        self._masked = MaskedSteps(
            masks,
            lead=next((parameter for parameter in own if parameter in masks), next(iter(masks))),
            before_step=lambda optimizer: before_step(trainer, optimizer),
            after_step=self._after_step,
            forgets=forgets,
        )
        self._masked.attach(trainer.optimizers)

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

    def waiting(self) -> dict[str, Any]:
        """Return the gradients that have come for an update that waits for others."""
        return self._gradients.saved(self._topology.parameters)

    def go_on(self, waiting: Mapping[str, Any]) -> None:
        """Take over what :meth:`waiting` returned."""
        if waiting:
            self._gradients.load(waiting, self._topology.parameters)

    def trained(self) -> list[Tensor]:
        """Return what could be stepped now, and what is switched off in its turn: not what was frozen for good.

        Which it is, its steps since the last update tell. A run that goes on in between has not seen all of them.
        """
        stepped, in_turns = self._masked.take_stepped()
        off = in_turns if self._from_the_start else stepped
        self._from_the_start = True
        return [p for p in trained_parameters(self._optimizers()) if p.requires_grad or p in off]

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

    def waiting(self) -> dict[str, Any]:
        """There is nothing that has come."""
        return {}
