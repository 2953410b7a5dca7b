"""SNT-ASGD straight from its formula: slow, in double precision, one Python list for each weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Weight:
    """One weight: its value, whether it is live, and its values over the steps since its birth."""

    value: float
    live: bool = True
    since_birth: list[float] = field(default_factory=list)

    @property
    def averaged(self) -> float:
        """ŵ = (1/(K − b)) Σ_{t = b+1..K} w_t, which is w before the first step and 0 where nothing lives."""
        if not self.live:
            return 0.0
        return sum(self.since_birth) / len(self.since_birth) if self.since_birth else self.value


@dataclass
class Tensor:
    """The weights of one tensor, with the learning rate and weight decay of its group."""

    weights: list[Weight]
    lr: float
    weight_decay: float


class ReferenceSNTASGD:
    """The optimizer on lists of floats. ``tensors`` may be changed from outside: groups added, rates scheduled."""

    def __init__(self, *, maximize: bool = False) -> None:
        self.tensors: list[Tensor] = []
        self.averaging = False
        self._sign = -1.0 if maximize else 1.0

    def add(self, values: Sequence[float], lr: float, weight_decay: float) -> None:
        self.tensors.append(Tensor([Weight(value) for value in values], lr, weight_decay))

    def begin(self) -> None:
        self.averaging = True
        for tensor in self.tensors:
            for weight in tensor.weights:
                weight.since_birth = []

    def step(self, gradients: Sequence[Sequence[float] | None]) -> None:
        for tensor, gradient in zip(self.tensors, gradients, strict=True):
            for i, weight in enumerate(tensor.weights):
                if gradient is not None and weight.live:
                    descent = self._sign * gradient[i] + tensor.weight_decay * weight.value
                    weight.value -= tensor.lr * descent
                if self.averaging:
                    weight.since_birth.append(weight.value)

    def set_masks(self, masks: Sequence[Sequence[float] | None], born: Sequence[Sequence[bool] | None]) -> None:
        for tensor, mask, newborn in zip(self.tensors, masks, born, strict=True):
            for i, weight in enumerate(tensor.weights):
                weight.live = mask is None or bool(mask[i])
                if not weight.live or (newborn is not None and newborn[i]):
                    weight.value = 0.0
                    weight.since_birth = []


def trigger_fires(losses: Sequence[float], nonmono: int) -> int | None:
    """Merity et al. 2018, algorithm 1: return the index of the validation that fires, if one does."""
    logs: list[float] = []
    for t, loss in enumerate(losses):
        if t > nonmono and loss > min(logs[: t - nonmono]):
            return t
        logs.append(loss)
    return None
