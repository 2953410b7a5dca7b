"""What changes in an SNTASGD beside its parameters' entries, as one object that its wrappers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_sparse_rnn.optim.trigger import NonMonotonicTrigger

__all__ = ["SharedState"]


@dataclass
class SharedState:
    """All that changes beside ``state`` and ``param_groups`` of the optimizer.

    Lightning and Fabric wrap optimizers in objects on which the same methods run, and which find this one object but
    keep to themselves whatever is set on them. So it is changed, and never replaced.

    Attributes:
        trigger: says when averages begin.
        steps: K, how many steps there have been.
        changes: how often averages have changed otherwise: by masks, and by beginning anew.
        folded: the step up to which the means are; the sums hold the steps since.
        masks: by parameter; those of the sparse ones.
        training: w by parameter, while the parameters show ŵ.
    """

    trigger: NonMonotonicTrigger
    steps: int = 0
    changes: int = 0
    folded: int = 0
    masks: dict[Tensor, Tensor] = field(default_factory=dict)
    training: dict[Tensor, Tensor] = field(default_factory=dict)

    def saved(self) -> dict[str, Any]:
        """The plain values that a checkpoint holds. Masks are the topology's."""
        return {
            "averaging": self.trigger.fired,
            "steps": self.steps,
            "folded": self.folded,
            "history": list(self.trigger.history),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`saved` returned. Masks stay, and the parameters show w."""
        self.trigger.load(bool(saved["averaging"]), [float(loss) for loss in saved["history"]])
        self.steps, self.folded = int(saved["steps"]), int(saved["folded"])
        self.changes += 1
        self.training = {}

    def require_training_weights(self, what: str) -> None:
        """Raise RuntimeError if the parameters show ŵ."""
        if self.training:
            raise RuntimeError(
                f"Cannot {what} while the parameters show their averages: leave `averaged_weights` first."
            )
