"""How any optimizer is masked: one that is told of masks, one that knows nothing of them, and one inside another.

An optimizer with a method ``set_masks(masks, born)``, as :class:`~lightning_sparse_rnn.SNTASGD` has it, is told of the
masks and keeps inactive weights at zero itself. All others have their weights masked after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from lightning_sparse_rnn.optim.memory import check_memory, forget

__all__ = ["MaskedSteps", "Since", "forget", "hand_over", "trained_parameters"]

_Stamp = tuple[int, int]


def trained_parameters(optimizers: Iterable[Optimizer]) -> set[Tensor]:
    """Return the parameters that optimizers step, whether or not they require gradients at the moment."""
    return {p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}


def hand_over(optimizer: Optimizer, masks: Mapping[Tensor, Tensor], born: Mapping[Tensor, Tensor]) -> None:
    """Tell an optimizer of masks that have changed, or let it forget what died and what was born.

    Args:
        optimizer: any; one without sparse parameters is passed over.
        masks: for each sparse parameter, 1 where live and 0 elsewhere.
        born: for each parameter, a boolean tensor of what has just been regrown.
    """
    if not any(parameter in masks for group in optimizer.param_groups for parameter in group["params"]):
        return
    if _is_told(optimizer):
        optimizer.set_masks(masks, born)  # type: ignore[attr-defined]
    else:
        forget(optimizer, masks, born)


@dataclass
class Since:
    """What optimizers have done since some moment.

    Attributes:
        stepped: what had a gradient in a step.
        off: what did not require one at the beginning of a batch.
        in_turns: what was first that and then had a step.
    """

    stepped: set[Tensor] = field(default_factory=set)
    off: set[Tensor] = field(default_factory=set)
    in_turns: set[Tensor] = field(default_factory=set)


class MaskedSteps:
    """Keeps inactive weights at zero after every step of every optimizer, from :meth:`attach` to :meth:`detach`.

    torch tells it of each step that any optimizer of this process takes. Those of optimizers that hold none of the
    parameters are passed over; all others are masked, also the ones that are made in mid-run, that other optimizers
    hold inside, and whose ``step`` nobody else sees. What changes weights in any other way is found by
    :meth:`enforce`, which is called between steps.

    Args:
        masks: for each sparse parameter its mask, in its dtype and on its device.
        lead: the parameter whose optimizer's steps are counted, where there are several.
        before_step: called with an optimizer that is about to step, once its gradients are there: a closure may make
            them in the step.
        after_step: called with the optimizer and whether its step counts; a step inside another's does not.
        forgets: whether optimizers will have to forget weights: one that could not is refused after its first step.
    """

    def __init__(
        self,
        masks: Mapping[Tensor, Tensor],
        lead: Tensor,
        *,
        before_step: Callable[[Optimizer], None],
        after_step: Callable[[Optimizer, bool], None],
        forgets: bool = True,
    ) -> None:
        self._masks = dict(masks)
        self._lead = lead
        self._before_step, self._after_step = before_step, after_step
        self._forgets = forgets
        self._own: WeakKeyDictionary[Optimizer, tuple[int, list[Tensor]]] = WeakKeyDictionary()
        self._checked: WeakKeyDictionary[Optimizer, bool] = WeakKeyDictionary()
        self._running: list[Optimizer] = []  # optimizers in the middle of a step, the outermost first
        self._stamps: dict[Tensor, _Stamp] = {}
        self._masked: set[Tensor] = set()  # what has been masked by a step since `enforce`
        self._looked: WeakSet[Optimizer] = WeakSet()  # whose closure's gradients somebody has looked at, in this step
        self.since = Since()
        self._with_gradient: set[Tensor] = set()  # in the steps that go on
        self._reached: set[Tensor] = set()  # had a gradient in a step
        self._passed_over: set[Tensor] = set()  # had none, though it requires one
        self._at_start = _stamp(lead)
        self.follows = False  # whether a step of the lead's optimizer has ever been seen
        self._handles: list[RemovableHandle] = []

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Begin, with optimizers that are known already."""
        self.detach()
        for optimizer in optimizers:
            self.parameters_of(optimizer)
        self._handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]

    def detach(self) -> None:
        """End: weights are no longer masked."""
        while self._handles:
            self._handles.pop().remove()

    @property
    def optimizers(self) -> list[Optimizer]:
        """All optimizers with sparse parameters that have been seen, those inside others among them."""
        return [optimizer for optimizer, (_, own) in self._own.items() if own]

    def hand_over(self, masks: Mapping[Tensor, Tensor], born: Mapping[Tensor, Tensor]) -> None:
        """Tell every optimizer that has been seen of new masks, and mask with them from now on."""
        self._masks = dict(masks)
        for optimizer in self.optimizers:
            hand_over(optimizer, masks, born)

    @property
    def without_gradient(self) -> set[Tensor]:
        """What optimizers have stepped and what never had a gradient there, though it requires one."""
        return self._passed_over - self._reached

    def looked(self, optimizer: Optimizer) -> None:
        """Take note that somebody has looked at the gradients that a closure made, in this step."""
        self._looked.add(optimizer)

    def take_since(self) -> Since:
        """Return what has been stepped since this was asked last."""
        found, self.since = self.since, Since()
        return found

    def begin_batch(self) -> None:
        """Mask what has been changed between two batches."""
        self._running.clear()
        self.enforce()
        self._masked.clear()
        self.since.off.update(parameter for parameter in self._masks if not parameter.requires_grad)
        self._at_start = _stamp(self._lead)

    def end_batch(self) -> bool:
        """Mask what has been changed in a batch.

        Returns:
            Whether the lead has been written to, and no step of its optimizer has been seen in this batch or before:
            weights change in a way that torch does not tell of.
        """
        unseen = not self.follows and self._at_start != _stamp(self._lead)
        # Not every change leaves a trace in a parameter's version: what no step has masked is masked in any case.
        self._mask(p for p in self._masks if p not in self._masked or self._stamps.get(p) != _stamp(p))
        return unseen

    def enforce(self) -> None:
        """Mask every parameter that has been written to since it was masked."""
        self._mask(parameter for parameter in self._masks if self._stamps.get(parameter) != _stamp(parameter))

    @torch.no_grad()
    def _mask(self, parameters: Iterable[Tensor]) -> None:
        written = list(parameters)
        if written:
            torch._foreach_mul_(written, [self._masks[parameter] for parameter in written])
            self._take_down(written)

    def _take_down(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            self._stamps[parameter] = _stamp(parameter)

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if not self.parameters_of(optimizer):
            return None
        self._running.append(optimizer)
        self._looked.discard(optimizer)
        self._note_gradients(optimizer)
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._looking(optimizer, kwargs["closure"])}
        if any(callable(argument) for argument in args[1:]):
            return tuple(self._looking(optimizer, each) if callable(each) else each for each in args), kwargs
        self._before_step(optimizer)
        return None

    def _note_gradients(self, optimizer: Optimizer) -> None:
        """Take note of what has a gradient: after the step some optimizers, and hooks of theirs, have let go of it."""
        self._with_gradient.update(p for p in self.parameters_of(optimizer) if p.grad is not None and p.requires_grad)

    def _looking(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return a closure after which the gradients are looked at, unless somebody has: a Trainer's closure does."""

        def closure_and_look() -> Any:
            loss = closure()
            self._note_gradients(optimizer)
            if optimizer not in self._looked:
                self._looked.add(optimizer)
                self._before_step(optimizer)
            return loss

        return closure_and_look

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        own = self.parameters_of(optimizer)
        if not own:
            return
        while self._running and self._running.pop() is not optimizer:
            pass
        if _is_told(optimizer):
            self._take_down(own)
        else:
            self._mask(own)
        self._masked.update(own)
        self._note_gradients(optimizer)  # of what the step itself has made
        stepped = self._with_gradient.intersection(own)
        self._with_gradient -= stepped
        self._reached |= stepped
        self._passed_over |= {parameter for parameter in own if parameter not in stepped and parameter.requires_grad}
        self.since.stepped |= stepped
        self.since.in_turns |= stepped & self.since.off
        if self._running:
            return
        if self._forgets and optimizer not in self._checked:
            check_memory(optimizer, self._masks)
            self._checked[optimizer] = True
        counts = any(parameter is self._lead for parameter in own)
        self.follows = self.follows or counts
        self._after_step(optimizer, counts)

    def parameters_of(self, optimizer: Optimizer) -> list[Tensor]:
        """Return the sparse parameters that an optimizer holds, and tell it of the masks if it is new here."""
        size = sum(len(group["params"]) for group in optimizer.param_groups)
        known = self._own.get(optimizer)
        if known is not None and known[0] == size:
            return known[1]
        own = [p for group in optimizer.param_groups for p in group["params"] if p in self._masks]
        self._own[optimizer] = (size, own)
        if own and _is_told(optimizer):
            optimizer.set_masks(self._masks)  # type: ignore[attr-defined]
        return own


def _is_told(optimizer: Optimizer) -> bool:
    return callable(getattr(optimizer, "set_masks", None))


def _stamp(parameter: Tensor) -> _Stamp:
    """Return what is another after a parameter has been written to, unless that was through its ``data``."""
    return parameter._version, parameter.data_ptr()
