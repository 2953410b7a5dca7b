"""The non-monotonic trigger: when validation has stopped improving (Merity et al. 2018, algorithm 1)."""

from __future__ import annotations

import math
import warnings

from torch import Tensor

from lightning_sparse_rnn.utilities.checks import check_whole

__all__ = ["NonMonotonicTrigger"]


class NonMonotonicTrigger:
    """Fires once a validation loss is worse than the best of all but the latest ``nonmono`` losses before it.

    With the losses v₁, v₂, … and n = ``nonmono`` it fires at the first t > n + 1 with

        vₜ > min(v₁, …, vₜ₋ₙ₋₁).

    It fires once, and goes on taking note of losses. :class:`SNTASGD` has one of its own; any other training loop can
    use it to stop, or to lower a learning rate.

    Args:
        nonmono: how many of the latest validations it leaves out when it looks for the best loss, at least 1.

    Raises:
        ValueError: ``nonmono`` is no whole number of at least 1.

    Example:
        >>> from lightning_sparse_rnn.optim import NonMonotonicTrigger
        >>> trigger = NonMonotonicTrigger(nonmono=2)
        >>> [trigger.observe(loss) for loss in (5.0, 3.0, 4.0, 4.0, 4.0)]
        [False, False, False, False, True]
    """

    def __init__(self, nonmono: int = 5) -> None:
        check_whole(nonmono=nonmono)
        self._nonmono = int(nonmono)
        self._history: list[float] = []
        self._fired = False

    @property
    def fired(self) -> bool:
        """Whether it has fired."""
        return self._fired

    @property
    def history(self) -> tuple[float, ...]:
        """The losses observed since :meth:`fire` was last called, or since the beginning, oldest first."""
        return tuple(self._history)

    def observe(self, metric: float | Tensor) -> bool:
        """Take note of a validation loss and return whether the trigger has just fired.

        A loss that is NaN or infinite is left out, with a warning.
        """
        loss = float(metric)
        if not math.isfinite(loss):
            warnings.warn(f"The trigger of SNTASGD leaves out a validation loss of {loss}.", stacklevel=2)
            return False
        earlier = self._history[: -self._nonmono]
        self._history.append(loss)
        if self._fired or not earlier or loss <= min(earlier):
            return False
        self._fired = True
        return True

    def fire(self) -> None:
        """Fire now, whatever the losses, and forget them."""
        self._history.clear()
        self._fired = True

    def load(self, fired: bool, history: list[float]) -> None:
        """Become a trigger that has been through this."""
        self._fired = fired
        self._history[:] = history
