"""The signs with which weights are born, for rules that prune what has crossed zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits, unpack_bits
from lightning_sparse_rnn.sparsity.numerics.compaction import count_true, expand
from lightning_sparse_rnn.sparsity.numerics.sampling import generator_for

__all__ = ["Signs"]


class Signs:
    """The sign of each weight, true if positive: at first its own, and drawn anew when it is regrown.

    Args:
        parameters: by name.
        seed: of the draws.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], seed: int) -> None:
        self._parameters = dict(parameters)
        self._seed = seed
        self._flat = {name: parameter.detach().flatten() >= 0 for name, parameter in parameters.items()}

    def flat(self) -> dict[str, Tensor]:
        """Return them flattened by name, on the devices where the parameters are now."""
        for name, parameter in self._parameters.items():
            self._flat[name] = self._flat[name].to(parameter.device)
        return self._flat

    def draw(self, born: Mapping[str, Tensor], number: int) -> None:
        """Give weights a sign at random where a flattened mask is true, in update ``number``."""
        for name, signs in self.flat().items():
            generator = generator_for(self._seed, number, f"signs/{name}", signs.device)
            count = count_true(born[name])
            drawn = torch.randint(2, (count,), generator=generator, device=signs.device, dtype=torch.uint8)
            signs.logical_and_(~born[name]).logical_or_(expand(drawn.bool(), born[name]))

    def state_dict(self) -> dict[str, Tensor]:
        """Return them packed to bits."""
        return {name: pack_bits(flat) for name, flat in self._flat.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved signs; those that are not there stay as they are."""
        for name, signs in self._flat.items():
            if name in state:  # else the run goes on with another rule than it had, from the signs of today
                signs.copy_(unpack_bits(state[name], signs.numel()))
