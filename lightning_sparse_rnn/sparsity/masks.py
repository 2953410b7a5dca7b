"""The masks of a topology: which positions are live, and which have been at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity.gates import GateLayout
from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits, unpack_bits
from lightning_sparse_rnn.sparsity.numerics.compaction import count_true
from lightning_sparse_rnn.sparsity.saved_tensors import check_tensors

__all__ = ["Masks"]

Counts = dict[str, dict[str, int]]


class Masks:
    """A mask for each parameter, all live at first, and the counts of what they mark.

    Args:
        parameters: by name.
        layouts: their gates.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], layouts: Mapping[str, GateLayout]) -> None:
        self._parameters = parameters
        self.layouts = layouts
        #: By name, 1 where live and else 0, in the shape and dtype of the parameter: multiplying by a mask of another
        #: dtype takes eight times as long.
        self.by_name = {name: torch.ones_like(parameter) for name, parameter in parameters.items()}
        self._explored = {name: mask.flatten().bool() for name, mask in self.by_name.items()}
        self._live: int | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each."""
        return {name: tuple(mask.shape) for name, mask in self.by_name.items()}

    @property
    def total(self) -> int:
        """The number of positions."""
        return sum(mask.numel() for mask in self.by_name.values())

    @property
    def live(self) -> int:
        """The number of live ones."""
        if self._live is None:  # counted once after each change: progress bars ask all the time
            self._live = sum(count_true(flat) for flat in self.flat().values())
        return self._live

    def flat(self) -> dict[str, Tensor]:
        """Return flattened boolean copies, on the devices where the parameters are now."""
        self._follow()
        return {name: mask.flatten().bool() for name, mask in self.by_name.items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Set every inactive weight to zero, in place."""
        self._follow()
        for name, parameter in self._parameters.items():
            parameter.mul_(self.by_name[name])

    def begin(self, live: Mapping[str, Tensor]) -> None:
        """Make live what is true in flattened masks by name, as if nothing had been live before, and apply that."""
        self._set(live)
        self.apply()
        self._explored = {name: flat.clone() for name, flat in live.items()}

    def move(self, live: Mapping[str, Tensor], born: Mapping[str, Tensor]) -> None:
        """Make live what is true in flattened masks by name, and zero what is not live or has just been ``born``."""
        # Weights that are pruned and regrown at once are zeroed too: they start anew like every other newborn.
        self._set({name: flat & ~born[name] for name, flat in live.items()})
        self.apply()
        self._set(live)
        for name, flat in live.items():
            self._explored[name] |= flat

    def _set(self, live: Mapping[str, Tensor]) -> None:
        for name, mask in self.by_name.items():
            mask.copy_(live[name].view(mask.shape))
        self._live = None

    def _follow(self) -> None:
        """Bring what is kept of each parameter to where it has moved since."""
        for name, parameter in self._parameters.items():
            self.by_name[name] = self.by_name[name].to(parameter)
            self._explored[name] = self._explored[name].to(parameter.device)

    # ------------------------------------------------------------------------------------------------------- by gate

    @property
    def gate_sizes(self) -> Counts:
        """For each tensor, how many positions each gate has; a tensor without gates is one, ``"all"``."""
        return {
            name: {gate: stop - start for gate, start, stop in self.layouts[name].spans(shape)}
            for name, shape in self.shapes.items()
        }

    def live_per_gate(self) -> Counts:
        """For each tensor, how many positions of each gate are live."""
        return self.per_gate(self.flat())

    def gate_densities(self) -> dict[str, dict[str, float]]:
        """For each tensor, the share of each gate's positions that is live."""
        sizes = self.gate_sizes
        return {
            name: {gate: live / sizes[name][gate] for gate, live in gates.items()}
            for name, gates in self.live_per_gate().items()
        }

    def explored_per_gate(self) -> Counts:
        """For each tensor, how many positions of each gate have been live at any time."""
        return self.per_gate(self._explored)

    def per_gate(self, flat: Mapping[str, Tensor]) -> Counts:
        """For each tensor, how often a flattened boolean one is true in each gate."""
        return {
            name: {gate: count_true(flat[name][start:stop]) for gate, start, stop in self.layouts[name].spans(shape)}
            for name, shape in self.shapes.items()
        }

    # --------------------------------------------------------------------------------------------------------- saved

    def state_dict(self) -> dict[str, Any]:
        """Return shapes, and masks packed to bits."""
        return {
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "masks": {name: pack_bits(mask) for name, mask in self.by_name.items()},
            "explored": {name: pack_bits(flat) for name, flat in self._explored.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], module: nn.Module | None = None) -> None:
        """Take over saved masks. Of ``module``, if given, a message says why tensors are not sparse.

        Raises:
            ValueError: the state belongs to other tensors; the message names them. Nothing has changed.
        """
        check_tensors({name: tuple(shape) for name, shape in state["shapes"].items()}, self.shapes, module)
        for name, mask in self.by_name.items():
            mask.copy_(unpack_bits(state["masks"][name], mask.numel()).view(mask.shape))
            self._explored[name].copy_(unpack_bits(state["explored"][name], mask.numel()))
        self._live = None
