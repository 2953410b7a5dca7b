"""The gradients that an update waits for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_sparse_rnn.utilities.finite import first_not_finite

__all__ = ["StepGradients"]


class StepGradients:
    """Gathers the dense gradient of every sparse parameter that is trained, each at a step of its own optimizer."""

    def __init__(self) -> None:
        self._found: dict[Tensor, Tensor] = {}
        self._resting: set[Tensor] = set()  # what does not require a gradient at the step of its own optimizer
        self._missing: list[str] = []

    def clear(self) -> None:
        """Begin anew, for another update."""
        self._found, self._resting, self._missing = {}, set(), []

    def saved(self, named: Mapping[str, nn.Parameter]) -> dict[str, Any]:
        """Return what has come so far, by name: nothing where nothing has."""
        if not self._found:
            return {}
        found = {name: self._found[p].clone() for name, p in named.items() if p in self._found}
        resting = [name for name, p in named.items() if p in self._resting]
        return {"found": found, "resting": resting, "missing": list(self._missing)}

    def load(self, saved: Mapping[str, Any], named: Mapping[str, nn.Parameter]) -> None:
        """Take over what :meth:`saved` returned."""
        self._found = {named[name]: gradient.to(named[name]) for name, gradient in saved["found"].items()}
        self._resting = {named[name] for name in saved["resting"]}
        self._missing = list(saved["missing"])

    def check_all_came(self) -> None:
        """Raise, when the next update is due, if some gradients of the last one have come and others never did."""
        if self._found and self._missing:
            raise MisconfigurationException(
                "The rules of this sparse training look at gradients, and these parameters took no step with one since "
                f"the last update was due: {', '.join(self._missing)}. Leave them dense with `exclude`, or take rules "
                "that look at weights alone, as growth='random' does."
            )

    def gather(
        self,
        named: Mapping[str, nn.Parameter],
        stepping: Iterable[Tensor],
        trained: Collection[Tensor],
        finite: bool,
    ) -> dict[Tensor, Tensor] | None:
        """Take those of one optimizer that is about to step; return all of them once they are complete.

        Args:
            named: the sparse parameters.
            stepping: the parameters that the optimizer steps.
            trained: those that any optimizer does.
            finite: whether to pass over gradients that are not finite, since the step will be left out.

        Raises:
            MisconfigurationException: a parameter that steps has no dense gradient, while others have one.
        """
        steps = set(stepping)
        own = {name: parameter for name, parameter in named.items() if parameter in steps and parameter.requires_grad}
        self._resting |= {p for p in named.values() if p in steps and not p.requires_grad}
        missing = [name for name, parameter in own.items() if parameter.grad is None]
        if len(missing) == len(own):
            return None  # `training_step` has returned None
        if missing:
            raise MisconfigurationException(
                "The rules of this sparse training look at the gradients of an optimizer step, and these parameters "
                f"have none in it: {', '.join(missing)}. Leave them dense with `exclude`, or take rules that look at "
                "weights alone, as growth='random' does."
            )
        found: dict[Tensor, Tensor] = {
            parameter: parameter.grad for parameter in own.values() if parameter.grad is not None
        }
        if sparse := [name for name, parameter in own.items() if found[parameter].is_sparse]:
            raise MisconfigurationException(
                "The rules of this sparse training look at the gradient of every weight, inactive ones too, and these "
                f"parameters have a sparse one: {', '.join(sparse)}. Make the embedding with `sparse=False`."
            )
        if finite and first_not_finite({name: found[parameter] for name, parameter in own.items()}) is not None:
            return None
        settled = {*found, *self._found, *self._resting}
        self._missing = [name for name, parameter in named.items() if parameter in trained and parameter not in settled]
        if self._missing:  # the next of these steps may come when these gradients have been zeroed
            self._found.update({parameter: gradient.clone() for parameter, gradient in found.items()})
            return None
        complete = {**self._found, **found}
        self.clear()
        return complete
