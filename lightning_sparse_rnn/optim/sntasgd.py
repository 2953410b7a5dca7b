"""SNT-ASGD: non-monotonically triggered averaged SGD that understands masks (Liu et al. 2021, section 3.3).

The states that the optimizer can be in, in the paper's notation (w: weights that are trained, ŵ: their averages):

    state           entered by                     parameters show   step, set_masks, restart   a parameter's entry has
    not averaging   being made                     w                 allowed                    nothing
    averaging       observe() is True, restart()   w                 allowed                    mean, born, and sum
    showing ŵ       show_averaged_weights()        ŵ                 refused                    mean, born

"sum" is there from the first step on; while ŵ is shown its memory holds w. observe, averaged, training, state_dict and
load_state_dict are allowed in every state; show_averaged_weights changes nothing before there are averages, and
show_training_weights leads back from "showing ŵ" to "averaging".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse_rnn.optim.averages import begin, bring_up, copied, current, give_birth, restrict, running_sum
from lightning_sparse_rnn.optim.checks import check_masks, check_options, check_saved
from lightning_sparse_rnn.optim.shared_state import SharedState
from lightning_sparse_rnn.optim.steps import Step, take
from lightning_sparse_rnn.optim.trigger import NonMonotonicTrigger

__all__ = ["SNTASGD"]


class SNTASGD(Optimizer):
    """SGD that, once validation stops improving, also averages every weight over the steps since it was last regrown.

    Every step is plain SGD with L2 weight decay, restricted to live weights. Once the trigger has fired, each weight
    ``i`` also has the average over the steps since its birth ``bᵢ`` (the later of the trigger and its last regrowth),

        ŵᵢ = 1/(K − bᵢ) · Σ_{t = bᵢ+1..K} wᵢ,ₜ      if it is live, else 0,

    and ŵᵢ = wᵢ before its first step. Training goes on with w; :meth:`averaged_weights` shows ŵ. The trigger is that
    of NT-ASGD (Merity et al. 2018, algorithm 1), fed by :meth:`observe`. Without masks this is NT-ASGD.

    While it averages it keeps, beside the parameters, a mean, a sum and a birth a weight: 12 bytes, and 4 for the mask.
    ``copy.copy`` gives a second handle on the same averages and trigger, as the wrappers of Lightning and Fabric are;
    ``copy.deepcopy`` and ``pickle`` give an optimizer of its own.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate, at least 0.
        weight_decay: L2 coefficient, at least 0.
        nonmono: how many of the latest validations the trigger leaves out when it looks for the best loss, at least 1.
        since_birth: average each live weight over the steps since it was last born. ``False``: over all steps since
            the trigger, zeros and earlier lives included, which is NT-ASGD on masked weights.
        maximize: ascend instead of descend.
        foreach: one call for many tensors. ``None`` takes the fastest way: on CPUs tensor by tensor, on GPUs one
            Triton kernel for each tensor if Triton is there, and elsewhere one call for many.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: `lr` or `weight_decay` is no number.

    Example:
        >>> import torch
        >>> from lightning_sparse_rnn import SNTASGD
        >>> weight = torch.nn.Parameter(torch.tensor([4.0, 0.0]))
        >>> optimizer = SNTASGD([weight], lr=1.0)
        >>> optimizer.set_masks({weight: torch.tensor([1.0, 0.0])})
        >>> optimizer.restart()  # or observe(val_loss) after each validation, until it returns True
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(2)
        ...     optimizer.step()
        >>> weight.tolist(), optimizer.averaged(weight).tolist()
        ([2.0, 0.0], [2.5, 0.0])
    """

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
        check_options(lr=lr, weight_decay=weight_decay, since_birth=since_birth, maximize=maximize)
        self._since_birth = since_birth
        self._shared = SharedState(NonMonotonicTrigger(nonmono))
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_since_birth": self._since_birth, "_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_shared" in state:
            super().__setstate__(state)
        else:  # the end of torch's `load_state_dict`: whoever shares these is to see what was loaded
            self.param_groups[:] = state["param_groups"]
            self.state.clear()
            self.state.update(state["state"])

    # ------------------------------------------------------------------------------------------------ the trigger

    @property
    def averaging(self) -> bool:
        """Whether the trigger has fired."""
        return self._shared.trigger.fired

    @property
    def history(self) -> tuple[float, ...]:
        """The validation losses observed in this phase, oldest first."""
        return self._shared.trigger.history

    @property
    def revision(self) -> tuple[int, int]:
        """Equal to an earlier one as long as nothing has changed ŵ."""
        return self._shared.steps, self._shared.changes

    def observe(self, metric: float | Tensor) -> bool:
        """Take note of a validation loss and return whether it has just started the averaging.

        It does if it is worse than the best of all but the latest ``nonmono`` losses before it. That happens once. A
        loss that is NaN or infinite is left out, with a warning. See :class:`NonMonotonicTrigger`.
        """
        if fires := self._shared.trigger.observe(metric):
            self._begin()
        return fires

    def restart(self) -> None:
        """Start a new averaging phase: the averages begin with the next step, whatever there was before."""
        self._shared.require_training_weights("start to average")
        self._shared.trigger.fire()
        self._begin()

    def _begin(self) -> None:
        self._shared.folded = self._shared.steps
        self._begin_averages(self._all())

    def _begin_averages(self, parameters: Iterable[Tensor]) -> None:
        self._shared.changes += 1
        for parameter in parameters:
            self.state[parameter] = begin(parameter, self._shared.steps)

    # ------------------------------------------------------------------------------------------------------ steps

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; their averages start now if others are averaged already."""
        averaging = self.averaging
        if averaging:
            self._fold()
        super().add_param_group(param_group)
        if averaging:
            self._begin_averages(self.param_groups[-1]["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; a parameter without a gradient stays, and its average counts the step all the same.

        Args:
            closure: evaluates the model anew and returns the loss.

        Raises:
            RuntimeError: a gradient is sparse, or the parameters show their averages.
        """
        self._shared.require_training_weights("take a step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in self._all()):
            raise RuntimeError("SNTASGD takes dense gradients only. Make the embedding with `sparse=False`.")
        for group in self.param_groups:
            self._step_group(group)
        self._shared.steps += 1
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        averaging = self.averaging
        weights = [parameter for parameter in group["params"] if parameter.grad is not None]
        step = Step(
            weights,
            [parameter.grad for parameter in weights],
            [self._shared.masks.get(parameter) for parameter in weights],
            [running_sum(self.state[parameter]) for parameter in weights] if averaging else None,
            decay=1.0 - group["lr"] * group["weight_decay"],
            move=group["lr"] if group["maximize"] else -group["lr"],
        )
        take(step, group["foreach"])
        if averaging:
            for parameter in group["params"]:
                if parameter.grad is None:
                    running_sum(self.state[parameter]).add_(parameter.detach())

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
        self._shared.require_training_weights("change masks")
        born = born or {}
        own = list(self._all())
        check_masks(own, masks, born)
        self._shared.changes += 1
        live = self._shared.masks = {p: masks[p].to(p) for p in own if p in masks}
        for parameter, mask in live.items():
            parameter.mul_(mask)
        if not self.averaging:
            return
        if not self._since_birth:  # then nothing is born anew, but until the first step ŵ is w
            for parameter in own:
                if self.state[parameter]["born"] == self._shared.steps:
                    self.state[parameter]["mean"].copy_(parameter)
            return
        self._fold()
        for parameter in own:
            state = self.state[parameter]
            if parameter in born:
                give_birth(state, parameter, born[parameter].to(parameter.device), self._shared.steps)
            if parameter in live:
                state["mean"].mul_(live[parameter])

    # --------------------------------------------------------------------------------------------------- averages

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Show ŵ in the parameters inside the ``with`` block, and put w back whatever happens there.

        Before the trigger ŵ is w and nothing changes. A block inside a block changes nothing either.
        """
        shown_before = bool(self._shared.training)
        try:
            self.show_averaged_weights()
            yield
        finally:
            if not shown_before:
                self.show_training_weights()

    @torch.no_grad()
    def show_averaged_weights(self) -> None:
        """Show ŵ in the parameters until :meth:`show_training_weights`. Steps are refused meanwhile."""
        if self._shared.training or not self.averaging:
            return
        self._fold()
        for parameter in self._all():
            state = self.state[parameter]
            # With all steps folded into the mean the sum is zero: its memory can hold w for the time being.
            memory = state.pop("sum") if "sum" in state else torch.empty_like(state["mean"])
            self._shared.training[parameter] = memory.copy_(parameter)
            parameter.copy_(self._live(parameter, state["mean"]))

    @torch.no_grad()
    def show_training_weights(self) -> None:
        """Put w back into the parameters, if they show ŵ."""
        # An interrupt at any point of this leaves a state from which it can be done again.
        shown = self._shared.training
        for parameter, weight in shown.items():
            parameter.copy_(weight)
        self._shared.training = {}
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
        if not self.averaging:
            return parameter.detach().to(parameter.dtype, copy=copy)
        state = self.state[parameter]
        mean = current(state, self._shared.steps, self._shared.folded)
        return self._live(parameter, mean).to(parameter.dtype, copy=copy and mean is state["mean"])

    def _live(self, parameter: Tensor, mean: Tensor) -> Tensor:
        """Return a mean without what earlier lives of inactive weights have left in it.

        When training on a GPU has ended, Lightning moves the state to the CPU, which is not told of the masks.
        """
        if self._since_birth or parameter not in self._shared.masks:
            return mean
        return mean * self._shared.masks[parameter].to(mean.device)

    def training(self, parameter: Tensor, *, copy: bool = True) -> Tensor:
        """Return w of one parameter, in its shape and dtype, whatever the parameters show; see :meth:`averaged`."""
        return self._shared.training.get(parameter, parameter).detach().to(parameter.dtype, copy=copy)

    def _fold(self) -> None:
        """Bring the means up to the current step."""
        if self._shared.steps == self._shared.folded:
            return
        for parameter in self._all():
            bring_up(self.state[parameter], self._shared.steps, self._shared.folded)
        self._shared.folded = self._shared.steps

    # ------------------------------------------------------------------------------------------------ state to save

    def state_dict(self) -> dict[str, Any]:
        """Return averages, births and the trigger's history: tensors and plain values. Masks are the topology's."""
        saved: dict[str, Any] = super().state_dict()
        if self._shared.steps == self._shared.folded:
            # The sums are zero, and need not be written.
            saved["state"] = {
                index: {name: value for name, value in state.items() if name != "sum"}
                for index, state in saved["state"].items()
            }
        saved["averaging"] = self._shared.saved()
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state. Masks stay as they are, and hold for saved averages too.

        Raises:
            ValueError: the state is not one of SNTASGD, or of other parameters.
        """
        indices = check_saved(state_dict, list(self._all()))
        # torch would cast every saved tensor to its parameter's dtype, which neither births nor the means of
        # half-precision weights survive. It loads the groups; the tensors are copied here.
        super().load_state_dict({**state_dict, "state": {}})
        for index, parameter in zip(indices, self._all(), strict=True):
            if index in state_dict["state"]:
                self.state[parameter] = copied(state_dict["state"][index], parameter.device)
        self._shared.load(state_dict["averaging"])
        # Averages of a dense run know nothing of masks.
        for parameter, mask in self._shared.masks.items():
            if self._since_birth and parameter in self.state:
                restrict(self.state[parameter], mask)

    def _all(self) -> Iterator[Tensor]:
        return itertools.chain.from_iterable(group["params"] for group in self.param_groups)
