"""Which weights of a module are live, and how that changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity.allocation import ALLOCATIONS
from lightning_sparse_rnn.sparsity.checks import check_fraction, check_known
from lightning_sparse_rnn.sparsity.gates import GateLayout, find_gates
from lightning_sparse_rnn.sparsity.growth import GROWTH
from lightning_sparse_rnn.sparsity.pruning import PRUNING
from lightning_sparse_rnn.sparsity.redistribution import SCOPES, Pool
from lightning_sparse_rnn.sparsity.sampling import choose, generator_for
from lightning_sparse_rnn.sparsity.selection import sparsifiable_parameters

__all__ = ["SparseTopology", "TopologyUpdate"]

#: ``allocation`` that takes the module's own non-zero weights for its live ones.
NONZERO = "nonzero"
_DRAW_OF_INITIAL_MASKS = 0


@dataclass(frozen=True)
class TopologyUpdate:
    """What one topology update did.

    Attributes:
        number: 1 for a topology's first update, 2 for its second, ...
        rate: share of each pool's live weights that was pruned, in [0, 1).
        pruned, regrown, live: per tensor, per gate, the number of weights pruned, regrown, and live afterwards.
        born: for each parameter, a boolean mask of what was regrown, those positions included that were pruned in the
            same update.
    """

    number: int
    rate: float
    pruned: dict[str, dict[str, int]]
    regrown: dict[str, dict[str, int]]
    live: dict[str, dict[str, int]]
    born: dict[Tensor, Tensor]

    @property
    def replaced(self) -> float:
        """Share of all live weights that this update replaced, in [0, 1)."""
        return _total(self.pruned) / max(1, _total(self.live))


class SparseTopology:
    """The live weights of a module: exact counts, exact zeros elsewhere (Liu et al. 2021, section 3).

    Every trainable floating-point parameter with two or more dimensions is sparse, unless ``include`` or ``exclude``
    says otherwise; a tensor used under several names is one tensor with one mask. Masks live here, outside the module:
    its parameters and its ``state_dict`` stay those of the dense module, with zeros in them.

    Args:
        module: its parameters are masked in place at once.
        sparsity: share of weights that are not live, in [0, 1). Unused with ``allocation="nonzero"``.
        allocation: ``"uniform"``, ``"erdos_renyi"``, ``"erdos_renyi_kernel"``: how many live weights each tensor gets;
            which positions is uniformly random. ``"nonzero"`` takes the weights that are not zero, dense or sparse.
        pruning: which live weights an update prunes: ``"magnitude"``.
        growth: which inactive weights an update regrows: ``"random"``.
        redistribution: what keeps its number of live weights: each gate (``"none"``), each matrix (``"gates"``, the
            paper), each recurrent layer (``"layer"``), or only the whole model (``"model"``).
        include: shell patterns over parameter names; only what matches one of them is sparse.
        exclude: shell patterns over parameter names; what matches one of them stays dense.
        seed: of the random choices. Equal seeds make equal choices on every rank and after every resume.
        state: a saved :meth:`state_dict` to go on from, instead of an allocation.

    Raises:
        ValueError: an option is out of range or unknown, a pattern matches nothing, there is nothing to make sparse,
            or a tensor would have no live weight.
    """

    def __init__(
        self,
        module: nn.Module,
        sparsity: float = 0.67,
        *,
        allocation: str = "uniform",
        pruning: str = "magnitude",
        growth: str = "random",
        redistribution: str = "gates",
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.check_options(sparsity, allocation, pruning, growth, redistribution)
        self._prune = PRUNING[pruning]
        self._grow = GROWTH[growth]
        self._seed = seed
        self._updates = 0
        self._parameters = sparsifiable_parameters(module, include, exclude)
        shapes = {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}
        self._layouts = _layouts(module, shapes)
        self._pools = SCOPES[redistribution](shapes, self._layouts)
        if state is None:
            self._masks = self._initial_masks(ALLOCATIONS.get(allocation), shapes, 1.0 - sparsity)
        else:
            self._masks = {name: torch.ones_like(parameter) for name, parameter in self._parameters.items()}
            self.load_state_dict(state)
        self.apply_masks()

    @staticmethod
    def check_options(sparsity: float, allocation: str, pruning: str, growth: str, redistribution: str) -> None:
        """Raise what the constructor would raise for these options, before there is a module."""
        check_fraction("sparsity", sparsity)
        check_known("allocation", allocation, (*ALLOCATIONS, NONZERO))
        check_known("pruning", pruning, PRUNING)
        check_known("growth", growth, GROWTH)
        check_known("redistribution", redistribution, SCOPES)

    def _initial_masks(
        self,
        allocate: Callable[[Mapping[str, tuple[int, ...]], float], dict[str, int]] | None,
        shapes: Mapping[str, tuple[int, ...]],
        density: float,
    ) -> dict[str, Tensor]:
        if allocate is None:
            masks = {name: (p.detach() != 0).to(p.dtype) for name, p in self._parameters.items()}
            counts = {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}
        else:
            masks = {}
            counts = allocate(shapes, density)
        empty = [f"{name} {shapes[name]}" for name, count in counts.items() if count == 0]
        if empty:
            raise ValueError(
                f"These tensors would have no live weight: {', '.join(empty)}. Lower the sparsity, or leave them dense "
                "with `exclude`."
            )
        for name, parameter in self._parameters.items():
            if name not in masks:
                generator = generator_for(self._seed, _DRAW_OF_INITIAL_MASKS, name, parameter.device)
                live = choose(parameter.numel(), counts[name], generator)
                masks[name] = live.view(parameter.shape).to(parameter.dtype)
        return masks

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The sparse parameters by name."""
        return dict(self._parameters)

    @property
    def masks(self) -> dict[Tensor, Tensor]:
        """For each sparse parameter its mask: 1 where live, else 0, in the parameter's shape and dtype.

        These are the topology's own tensors, which the next update changes in place.
        """
        return {parameter: self._masks[name] for name, parameter in self._parameters.items()}

    @property
    def updates(self) -> int:
        """How many updates there have been."""
        return self._updates

    @property
    def total_weights(self) -> int:
        """How many weights the sparse tensors have room for."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def live_weights(self) -> int:
        """How many of them are live."""
        return sum(int(torch.count_nonzero(mask)) for mask in self._masks.values())

    @property
    def sparsity(self) -> float:
        """Share of the sparse tensors' weights that are not live."""
        return 1.0 - self.live_weights / self.total_weights

    @property
    def gate_sizes(self) -> dict[str, dict[str, int]]:
        """For each sparse tensor, how many weights each gate has room for; a tensor without gates is one, ``"all"``."""
        return {
            name: {gate: stop - start for gate, start, stop in self._layouts[name].spans(mask.shape)}
            for name, mask in self._masks.items()
        }

    def live_per_gate(self) -> dict[str, dict[str, int]]:
        """For each sparse tensor, how many weights of each gate are live."""
        return self._per_gate({name: mask.flatten() for name, mask in self._masks.items()})

    def gate_densities(self) -> dict[str, dict[str, float]]:
        """For each sparse tensor, each gate's share of live weights, in [0, 1]."""
        return {
            name: {gate: live / self.gate_sizes[name][gate] for gate, live in gates.items()}
            for name, gates in self.live_per_gate().items()
        }

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set every inactive weight to zero, in place."""
        for name, parameter in self._parameters.items():
            self._follow(name, parameter)
            parameter.mul_(self._masks[name])

    @torch.no_grad()
    def update(self, rate: float) -> TopologyUpdate:
        """Prune ``⌈rate · n⌉`` of each pool's ``n`` live weights and regrow as many, at zero.

        The positions just pruned are open to regrowth like any other. A pool whose positions are all live is left as
        it is: nothing can move in it.

        Raises:
            ValueError: ``rate`` is not in [0, 1).
            FloatingPointError: a weight is NaN or infinite. The topology is unchanged.
        """
        check_fraction("rate", rate)
        self._check_finite()
        number = self._updates + 1
        live = {name: mask.flatten().bool() for name, mask in self._masks.items()}
        pruned = self._prune_pools(live, rate)
        self._set_masks(live)
        # Weights that are pruned and regrown at once are zeroed here too: they start anew like every other newborn.
        self.apply_masks()
        regrown = self._grow_pools(live, pruned, number)
        self._set_masks(live)
        self._updates = number
        return TopologyUpdate(
            number=number,
            rate=rate,
            pruned=self._per_gate(pruned),
            regrown=self._per_gate(regrown),
            live=self._per_gate(live),
            born={parameter: regrown[name].view(parameter.shape) for name, parameter in self._parameters.items()},
        )

    def _prune_pools(self, live: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
        """Prune each pool's share, in ``live``, and return what was pruned."""
        weights = {name: parameter.detach().flatten() for name, parameter in self._parameters.items()}
        pruned = {name: torch.zeros_like(flat) for name, flat in live.items()}
        for pool in self._pools:
            here = _gather(pool, live)
            n = int(torch.count_nonzero(here))
            count = _share(rate, n)
            if count == 0 or n == here.numel():
                continue
            gone = torch.zeros_like(here).masked_scatter_(here, self._prune(_gather(pool, weights)[here], count))
            _scatter(pool, gone, pruned)
            _scatter(pool, here & ~gone, live)
        return pruned

    def _grow_pools(self, live: dict[str, Tensor], pruned: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        """Regrow in each pool as many as were pruned there, in ``live``, and return what was regrown."""
        regrown = {name: torch.zeros_like(flat) for name, flat in live.items()}
        for pool in self._pools:
            count = int(torch.count_nonzero(_gather(pool, pruned)))
            if count == 0:
                continue
            free = ~_gather(pool, live)
            candidates = int(torch.count_nonzero(free))
            chosen = self._grow(candidates, count, generator_for(self._seed, number, pool.key, free.device))
            back = torch.zeros_like(free).masked_scatter_(free, chosen)
            _scatter(pool, back, regrown)
            _scatter(pool, ~free | back, live)
        return regrown

    def _set_masks(self, live: Mapping[str, Tensor]) -> None:
        for name, mask in self._masks.items():
            mask.copy_(live[name].view(mask.shape))

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, packed to bits, and the number of updates: tensors and plain values only."""
        return {
            "updates": self._updates,
            "shapes": {name: list(mask.shape) for name, mask in self._masks.items()},
            "masks": {name: _pack(mask) for name, mask in self._masks.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved masks. The weights are not touched: call :meth:`apply_masks` where they may not fit.

        Raises:
            ValueError: the state belongs to other tensors; the message names them. The topology is unchanged.
        """
        saved = {name: tuple(shape) for name, shape in state["shapes"].items()}
        here = {name: tuple(mask.shape) for name, mask in self._masks.items()}
        if saved != here:
            raise ValueError(
                "The saved topology is of other tensors than this module's sparse ones. " + _difference(saved, here)
            )
        for name, mask in self._masks.items():
            mask.copy_(_unpack(state["masks"][name], mask.shape))
        self._updates = int(state["updates"])

    def _follow(self, name: str, parameter: nn.Parameter) -> None:
        """Bring the mask to where the parameter has moved since."""
        self._masks[name] = self._masks[name].to(parameter)

    def _check_finite(self) -> None:
        for name, parameter in self._parameters.items():
            self._follow(name, parameter)
            # A sum is NaN or infinite if any term is, and takes a tenth of the time of looking at each.
            if not math.isfinite(float(parameter.sum())) and not bool(torch.isfinite(parameter).all()):
                raise FloatingPointError(
                    f"Parameter {name!r} has weights that are NaN or infinite. Training has diverged: lower the "
                    "learning rate or clip gradients, and go on from the last good checkpoint."
                )

    def _per_gate(self, flat: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
        return {
            name: {
                gate: int(torch.count_nonzero(flat[name][start:stop]))
                for gate, start, stop in self._layouts[name].spans(parameter.shape)
            }
            for name, parameter in self._parameters.items()
        }


def _layouts(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, GateLayout]:
    """Return each tensor's gates; a tensor without any is one block, and a layer of its own."""
    gates = find_gates(module)
    return {name: gates.get(name) or GateLayout({"all": shape[0]}, layer=name) for name, shape in shapes.items()}


def _gather(pool: Pool, flat: Mapping[str, Tensor]) -> Tensor:
    """Return the pool's values of the flattened tensors, as one tensor on the device of the first."""
    parts = [flat[segment.name][segment.start : segment.stop] for segment in pool.segments]
    return parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])


def _scatter(pool: Pool, values: Tensor, flat: Mapping[str, Tensor]) -> None:
    """Write what :func:`_gather` read back to where it came from."""
    parts = values.split([segment.stop - segment.start for segment in pool.segments])
    for segment, part in zip(pool.segments, parts, strict=True):
        flat[segment.name][segment.start : segment.stop] = part


def _share(rate: float, n: int) -> int:
    """``⌈rate · n⌉``, where a product a rounding error above an integer counts as that integer."""
    return min(n, math.ceil(round(rate * n, 6)))


def _total(counts: Mapping[str, Mapping[str, int]]) -> int:
    return sum(count for gates in counts.values() for count in gates.values())


def _pack(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.detach().bool().cpu().numpy()))


def _unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    bits = np.unpackbits(packed.cpu().numpy(), count=math.prod(shape))
    return torch.from_numpy(bits).view(torch.bool).view(shape)


def _difference(saved: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]]) -> str:
    parts = [f"only in the saved one: {name} {saved[name]}" for name in saved if name not in here]
    parts += [f"only here: {name} {here[name]}" for name in here if name not in saved]
    parts += [
        f"{name} is {saved[name]} in the saved one and {here[name]} here"
        for name in saved
        if name in here and saved[name] != here[name]
    ]
    return "; ".join(parts).capitalize() + "."
