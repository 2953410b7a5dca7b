"""The running mean of gradients, for rules that look at more than one batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["Momenta"]

_DECAY = 0.9


class Momenta:
    """An exponential mean of each parameter's dense gradient, ``m ← 0.9·m + 0.1·g``, inactive positions included.

    Costs one pass over the parameters a step, and 4 bytes a weight.

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
                self.follow(name)
                self.means[name].lerp_(parameter.grad.to(self.means[name].dtype), 1.0 - _DECAY)

    def follow(self, name: str) -> None:
        """Bring a mean to where its parameter has moved since."""
        self.means[name] = self.means[name].to(self._parameters[name].device)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved means; those that are not there stay as they are."""
        for name, mean in state.items():
            self.means[name].copy_(mean)
