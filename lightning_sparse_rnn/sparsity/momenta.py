"""The running mean of gradients, for rules that look at more than one batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["Momenta"]

_DECAY = 0.9


class Momenta:
    """An exponential mean of each parameter's dense gradient, ``m ← 0.9·m + 0.1·g``, inactive positions included.

    Costs one pass over the parameters at each step, and 4 bytes for each weight.

    Args:
        parameters: by name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self.means = {
            name: torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))
            for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def observe(self, parameters: Iterable[Tensor]) -> None:
        """Take note of the gradients of those of ``parameters`` that have one."""
        wanted = set(parameters)
        for name, parameter in self._parameters.items():
            if parameter in wanted and parameter.grad is not None:
                mean = self._here(name)
                mean.lerp_(parameter.grad.to(mean.dtype), 1.0 - _DECAY)

    def by_name(self) -> dict[str, Tensor]:
        """Return the means, on the devices where the parameters are now."""
        return {name: self._here(name) for name in self.means}

    def _here(self, name: str) -> Tensor:
        self.means[name] = self.means[name].to(self._parameters[name].device)
        return self.means[name]

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the means."""
        return {name: mean.clone() for name, mean in self.means.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved means; those that are not there stay as they are, and those of others are left."""
        for name, mean in self.means.items():
            if name in state:
                mean.copy_(state[name])
