"""SNT-ASGD: non-monotonically triggered averaged SGD that understands masks (Liu et al. 2021, section 3.3)."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse_rnn.optim.steps import _step_foreach, _step_one_by_one

__all__ = ["SNTASGD"]


class SNTASGD(Optimizer):
    """SGD that, once validation stops improving, also averages every weight over the steps since it was last regrown.

    Every step is plain SGD with L2 weight decay, restricted to live weights. Once the trigger has fired, each weight
    ``i`` also has the average over the steps since its birth ``bᵢ`` (the later of the trigger and its last regrowth),

        ŵᵢ = 1/(K − bᵢ) · Σ_{t = bᵢ+1..K} wᵢ,ₜ      if it is live, else 0,

    and ŵᵢ = wᵢ before its first step. Training goes on with w; :meth:`averaged_weights` shows ŵ. The trigger is that
    of NT-ASGD (Merity et al. 2018, algorithm 1), fed by :meth:`observe`. Without masks this is NT-ASGD.

    While it averages it keeps, beside the parameters, a mean, a sum and a birth a weight: 12 bytes, and 4 for the mask.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate, at least 0.
        weight_decay: L2 coefficient, at least 0.
        nonmono: how many of the latest validations the trigger leaves out when it looks for the best loss, at least 1.
        since_birth: average each live weight over the steps since it was last born. ``False``: over all steps since
            the trigger, zeros and earlier lives included, which is NT-ASGD on masked weights.
        maximize: ascend instead of descend.
        foreach: one call for many tensors. ``None`` does so on accelerators, where it is faster.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: `lr` or `weight_decay` is no number.
    """

    _averaging = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        weight_decay: float = 0.0,
        nonmono: int = 5,
        since_birth: bool = True,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not isinstance(value, (Real, Tensor)):
                raise TypeError(f"Expected `{name}` to be a number, got {value!r}.")
            if not 0.0 <= value < math.inf:
                raise ValueError(f"Expected `{name}` to be a finite number of at least 0, got {value}.")
        if not 1 <= nonmono < math.inf or int(nonmono) != nonmono:
            raise ValueError(f"Expected `nonmono` to be a whole number of at least 1, got {nonmono}.")
        self._nonmono = int(nonmono)
        self._since_birth = since_birth
        self._history: list[float] = []
        self._steps = 0
        self._folded = 0  # the step up to which the means are; the sums hold the steps since
        self._masks: dict[Tensor, Tensor] = {}
        self._training: dict[Tensor, Tensor] = {}  # w of each parameter, while the parameters show ŵ
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach})

    def __getstate__(self) -> dict[str, Any]:
        own = ("_nonmono", "_since_birth", "_history", "_steps", "_folded", "_masks", "_training", "_averaging")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    # ------------------------------------------------------------------------------------------------ the trigger

    @property
    def averaging(self) -> bool:
        """Whether the trigger has fired."""
        return self._averaging

    @property
    def history(self) -> tuple[float, ...]:
        """The validation losses observed in this phase, oldest first."""
        return tuple(self._history)

    def observe(self, metric: float | Tensor) -> bool:
        """Take note of a validation loss and return whether it has just started the averaging.

        It does if it is worse than the best of all but the latest ``nonmono`` losses before it. That happens once. A
        loss that is NaN or infinite is left out, with a warning.
        """
        loss = float(metric)
        if not math.isfinite(loss):
            warnings.warn(f"The trigger of SNTASGD leaves out a validation loss of {loss}.", stacklevel=2)
            return False
        earlier = self._history[: -self._nonmono]
        self._history.append(loss)
        if self._averaging or not earlier or loss <= min(earlier):
            return False
        self._begin()
        return True

    def restart(self) -> None:
        """Start a new averaging phase: the averages begin with the next step, whatever there was before."""
        self._require_training_weights("start to average")
        self._history.clear()
        self._begin()

    def _begin(self) -> None:
        self._averaging = True
        self._folded = self._steps
        for parameter in self._all():
            self._bear(parameter)

    def _bear(self, parameter: Tensor) -> None:
        """Start the average of a whole parameter at the current step."""
        self.state[parameter] = {
            "mean": parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True),
            "born": self._steps,
        }

    # ------------------------------------------------------------------------------------------------------ steps

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; their averages start now if others are averaged already."""
        if self._averaging:
            self._fold()
        super().add_param_group(param_group)
        if self._averaging:
            for parameter in self.param_groups[-1]["params"]:
                self._bear(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; a parameter without a gradient stays, and its average counts the step all the same.

        Args:
            closure: evaluates the model anew and returns the loss.

        Raises:
            RuntimeError: a gradient is sparse, or the parameters show their averages.
        """
        self._require_training_weights("take a step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in self._all()):
            raise RuntimeError("SNTASGD takes dense gradients only. Make the embedding with `sparse=False`.")
        for group in self.param_groups:
            self._step_group(group)
        self._steps += 1
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        weights = [parameter for parameter in group["params"] if parameter.grad is not None]
        gradients = [parameter.grad for parameter in weights]
        masks = [self._masks.get(parameter) for parameter in weights]
        sums = [self._sum(parameter) for parameter in weights] if self._averaging else None
        decay = 1.0 - group["lr"] * group["weight_decay"]
        move = group["lr"] if group["maximize"] else -group["lr"]
        foreach = group["foreach"]
        if foreach is None:
            foreach = all(weight.device.type != "cpu" for weight in weights)
        (_step_foreach if foreach and weights else _step_one_by_one)(weights, gradients, masks, sums, decay, move)

        if self._averaging:
            for parameter in group["params"]:
                if parameter.grad is None:
                    self._sum(parameter).add_(parameter.detach())

    # ------------------------------------------------------------------------------------------------------ masks

    @torch.no_grad()
    def set_masks(self, masks: Mapping[Tensor, Tensor], born: Mapping[Tensor, Tensor] | None = None) -> None:
        """Restrict the weights to those that are live, from now on.

        A ``state_dict`` has no masks: after loading one into a new optimizer, or before, hand them over again.

        Args:
            masks: for each parameter that is sparse, a tensor of its shape that is 1 where live and 0 elsewhere. One of
                the parameter's dtype and device is shared, not copied. Parameters that are not here are dense; entries
                for parameters of another optimizer are passed over.
            born: for each parameter, a boolean tensor of what has just been regrown: these weights forget the average
                of their earlier life. A weight pruned and regrown in one update belongs here too.

        Raises:
            ValueError: none of the masks is for a parameter of this optimizer, or a shape differs.
            RuntimeError: the parameters show their averages.
        """
        self._require_training_weights("change masks")
        born = born or {}
        own = list(self._all())
        if masks and not any(parameter in masks for parameter in own):
            raise ValueError("None of the masks is for a parameter of this optimizer. Was it made for another module?")
        for parameter in own:
            for name, given in (("mask", masks), ("born", born)):
                if parameter in given and given[parameter].shape != parameter.shape:
                    raise ValueError(
                        f"Expected the {name} of a parameter in its shape {tuple(parameter.shape)}, got "
                        f"{tuple(given[parameter].shape)}."
                    )
        self._masks = {parameter: masks[parameter].to(parameter) for parameter in own if parameter in masks}
        for parameter, mask in self._masks.items():
            parameter.mul_(mask)
        if not self._averaging:
            return
        if not self._since_birth:
            return
        self._fold()
        for parameter in own:
            state = self.state[parameter]
            if parameter in born:
                newborn = born[parameter].to(parameter.device)
                if isinstance(state["born"], int):
                    state["born"] = torch.full_like(parameter, state["born"], dtype=torch.int32)
                state["born"].masked_fill_(newborn, self._steps)
                torch.where(newborn, parameter, state["mean"], out=state["mean"])
            if parameter in self._masks:
                state["mean"].mul_(self._masks[parameter])

    # --------------------------------------------------------------------------------------------------- averages

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Show ŵ in the parameters inside the ``with`` block, and put w back whatever happens there.

        Before the trigger ŵ is w and nothing changes. A block inside a block changes nothing either.
        """
        shown_before = bool(self._training)
        try:
            self.show_averaged_weights()
            yield
        finally:
            if not shown_before:
                self.show_training_weights()

    @torch.no_grad()
    def show_averaged_weights(self) -> None:
        """Show ŵ in the parameters until :meth:`show_training_weights`. Steps are refused meanwhile."""
        if self._training or not self._averaging:
            return
        self._fold()
        for parameter in self._all():
            state = self.state[parameter]
            # With all steps folded into the mean the sum is zero: its memory can hold w for the time being.
            memory = state.pop("sum") if "sum" in state else torch.empty_like(state["mean"])
            self._training[parameter] = memory.copy_(parameter)
            parameter.copy_(self._live(parameter, state["mean"]))

    @torch.no_grad()
    def show_training_weights(self) -> None:
        """Put w back into the parameters, if they show ŵ."""
        # An interrupt at any point of this leaves a state from which it can be done again.
        shown = self._training
        for parameter, weight in shown.items():
            parameter.copy_(weight)
        self._training = {}
        for parameter, weight in shown.items():
            self.state[parameter]["sum"] = weight.zero_()

    @torch.no_grad()
    def averaged(self, parameter: Tensor, *, copy: bool = True) -> Tensor:
        """Return ŵ of one parameter, in its shape and dtype, whatever the parameters show.

        Args:
            parameter: one of this optimizer's.
            copy: if ``False``, the result may share memory with the optimizer's state, which the next step changes: use
                it at once.
        """
        if not self._averaging:
            return parameter.detach().to(parameter.dtype, copy=copy)
        state = self.state[parameter]
        mean = state["mean"]
        if "sum" in state and self._steps != self._folded:
            mean, copy = mean.clone(), False
            self._fold_into(mean, state["sum"].clone(), state["born"])
        return self._live(parameter, mean).to(parameter.dtype, copy=copy)

    def _live(self, parameter: Tensor, mean: Tensor) -> Tensor:
        """Return a mean without what earlier lives of inactive weights have left in it.

        When training on a GPU has ended, Lightning moves the state to the CPU, which is not told of the masks.
        """
        if self._since_birth or parameter not in self._masks:
            return mean
        return mean * self._masks[parameter].to(mean.device)

    def training(self, parameter: Tensor, *, copy: bool = True) -> Tensor:
        """Return w of one parameter, in its shape and dtype, whatever the parameters show; see :meth:`averaged`."""
        return self._training.get(parameter, parameter).detach().to(parameter.dtype, copy=copy)

    def _fold(self) -> None:
        """Bring the means up to the current step. All weights born since the last fold were born right at it."""
        if self._steps == self._folded:
            return
        for parameter in self._all():
            state = self.state[parameter]
            self._fold_into(state["mean"], state["sum"], state["born"])
            state["sum"].zero_()
        self._folded = self._steps

    def _fold_into(self, mean: Tensor, total: Tensor, born: Tensor | int) -> None:
        """Fold the sum of the ``n`` latest steps into ``mean``: mean + (total − n·mean) / (K − b).

        ``total`` is overwritten.
        """
        mean.add_(total.sub_(mean, alpha=self._steps - self._folded).div_(self._steps - born))

    def _sum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "sum" not in state:
            state["sum"] = torch.zeros_like(state["mean"])
        total: Tensor = state["sum"]
        return total

    # ------------------------------------------------------------------------------------------------ state to save

    def state_dict(self) -> dict[str, Any]:
        """Return averages, births and the trigger's history: tensors and plain values. Masks are the topology's."""
        saved: dict[str, Any] = super().state_dict()
        if self._steps == self._folded:
            # The sums are zero, and need not be written.
            saved["state"] = {
                index: {name: value for name, value in state.items() if name != "sum"}
                for index, state in saved["state"].items()
            }
        saved["averaging"] = {
            "averaging": self._averaging,
            "steps": self._steps,
            "folded": self._folded,
            "history": list(self._history),
        }
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state. Masks stay as they are, and hold for saved averages too.

        Raises:
            ValueError: the state is not one of SNTASGD, or of other parameters.
        """
        if "averaging" not in state_dict:
            raise ValueError(
                "Expected the state of an SNTASGD, with an entry 'averaging', got one with the entries "
                f"{sorted(state_dict)}. It was saved by another optimizer."
            )
        indices = list(itertools.chain.from_iterable(group["params"] for group in state_dict["param_groups"]))
        for index, parameter in zip(indices, self._all(), strict=False):
            mean = state_dict["state"].get(index, {}).get("mean", parameter)
            if mean.shape != parameter.shape:
                raise ValueError(
                    f"Expected the saved average {index} in its parameter's shape {tuple(parameter.shape)}, got "
                    f"{tuple(mean.shape)}. It was saved for other parameters, or for the same in another order."
                )
        # torch would cast every saved tensor to its parameter's dtype, which neither births nor the means of
        # half-precision weights survive. It loads the groups; the tensors are copied here.
        super().load_state_dict({**state_dict, "state": {}})
        self.state.clear()
        for index, parameter in zip(indices, self._all(), strict=True):
            if index in state_dict["state"]:
                self.state[parameter] = {
                    name: value.to(parameter.device, copy=True) if isinstance(value, Tensor) else value
                    for name, value in state_dict["state"][index].items()
                }
        scalars = state_dict["averaging"]
        self._averaging = bool(scalars["averaging"])
        self._steps = int(scalars["steps"])
        self._folded = int(scalars["folded"])
        self._history = [float(loss) for loss in scalars["history"]]
        self._training = {}
        # Averages of a dense run know nothing of masks.
        for parameter, mask in self._masks.items():
            for name in ("mean", "sum"):
                if self._since_birth and name in self.state.get(parameter, {}):
                    self.state[parameter][name].mul_(mask)

    # -------------------------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Tensor]:
        return itertools.chain.from_iterable(group["params"] for group in self.param_groups)

    def _require_training_weights(self, what: str) -> None:
        if self._training:
            raise RuntimeError(
                f"Cannot {what} while the parameters show their averages: leave `averaged_weights` first."
            )
