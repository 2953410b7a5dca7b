"""Which weights of a module are live, and how that changes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity.gates import GateLayout, find_gates
from lightning_sparse_rnn.sparsity.history import TopologyUpdate
from lightning_sparse_rnn.sparsity.initial_masks import _DRAW_OF_INITIAL_MASKS, NONZERO, SNIP, _check_counts
from lightning_sparse_rnn.sparsity.momenta import Momenta
from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits, unpack_bits
from lightning_sparse_rnn.sparsity.numerics.compaction import count_true, expand
from lightning_sparse_rnn.sparsity.numerics.sampling import choose, generator_for
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.rules.allocation import ALLOCATIONS, AllocationRule
from lightning_sparse_rnn.sparsity.rules.initial_scale import INITIAL_SCALES, InitialScale
from lightning_sparse_rnn.sparsity.rules.method import Rules
from lightning_sparse_rnn.sparsity.rules.positions import PositionRule
from lightning_sparse_rnn.sparsity.rules.pruning import saliency
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution, ShareRule, whole_model
from lightning_sparse_rnn.sparsity.selection import embeddings_of, sparsifiable_parameters
from lightning_sparse_rnn.sparsity.update import Mover
from lightning_sparse_rnn.utilities.checks import check_fraction
from lightning_sparse_rnn.utilities.lookup import find_rule

__all__ = ["SparseTopology"]


class SparseTopology:
    """The live weights of a module: exact counts, exact zeros elsewhere (Liu et al. 2021, section 3).

    Every trainable floating-point parameter with two or more dimensions is sparse, unless ``include`` or ``exclude``
    says otherwise; a tensor used under several names is one tensor with one mask. Masks live here, outside the module:
    its parameters and its ``state_dict`` stay those of the dense module, with zeros in them.

    Args:
        module: its parameters are masked in place at once.
        sparsity: share of weights that are not live, in [0, 1). Unused with ``allocation="nonzero"``.
        allocation: how many live weights each tensor gets: ``"uniform"``, ``"erdos_renyi"``, ``"erdos_renyi_kernel"``;
            which positions is uniformly random. ``"nonzero"`` takes the weights that are not zero, dense or sparse.
            ``"snip"`` (Lee et al. 2019) leaves all of them live until :meth:`allocate` has a gradient to choose by.
        pruning: which live weights an update prunes: ``"magnitude"`` (the paper), ``"signed_magnitude"``,
            ``"sign_flip"``, ``"threshold"``, ``"saliency"``.
        growth: which inactive weights an update regrows: ``"random"`` (the paper), ``"gradient"``, ``"momentum"``, or
            ``None``: no weight comes back, and an update only prunes what is too many for its ``density``.
        redistribution: what keeps its number of live weights: each gate (``"none"``), each matrix (``"gates"``, the
            paper), each recurrent layer (``"layer"``), or only the whole model (``"model"``). With ``"live"`` and
            ``"momentum"`` too it is the whole model: each tensor regrows in proportion to the live weights it is left
            with, or to their mean momentum.
        include: shell patterns over parameter names; only what matches one of them is sparse.
        exclude: shell patterns over parameter names; what matches one of them stays dense.
        gates: for modules that do not say themselves which rows of a weight belong to which gate: by shell pattern
            over parameter names, the gates in row order, of equally many rows as in ``["hidden", "gate"]``, or with
            their numbers of rows as in ``{"hidden": 400, "gate": 800}``.
        initial_scale: what the live weights of a new topology are multiplied with, since masks have taken the others
            away: ``"none"`` (the paper), ``"density"`` (each tensor by 1/√density), ``"fan_in"`` (each row by
            √(its size / its live weights)). Weights of a ``state``, and those of ``"nonzero"``, are as they should be.
        seed: of the random choices. Equal seeds make equal choices on every rank and after every resume.
        state: a saved :meth:`state_dict` to go on from, instead of an allocation.

    Allocation, pruning, growth, redistribution and initial scale can also be rules of your own: functions, or their
    import paths as in ``"my_rules.largest_row"``. An allocation takes the tensors' shapes by name and a density, and
    returns counts by name. For the others see :mod:`~lightning_sparse_rnn.sparsity.rules.pruning`,
    :mod:`~lightning_sparse_rnn.sparsity.rules.growth`,
    :class:`~lightning_sparse_rnn.sparsity.rules.redistribution.Claim` and
    :data:`~lightning_sparse_rnn.sparsity.rules.initial_scale.InitialScale`.

    Raises:
        ValueError: an option is out of range or unknown, a pattern matches nothing, there is nothing to make sparse,
            or a tensor would have no live weight.
        TypeError: ``sparsity`` is no number.
    """

    def __init__(
        self,
        module: nn.Module,
        sparsity: float = 0.67,
        *,
        allocation: str | AllocationRule = "uniform",
        pruning: str | PositionRule = "magnitude",
        growth: str | PositionRule | None = "random",
        redistribution: str | ShareRule | Redistribution = "gates",
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        gates: Mapping[str, Sequence[str] | Mapping[str, int]] | None = None,
        initial_scale: str | InitialScale = "none",
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        options = TopologyOptions(
            sparsity, allocation, pruning, growth, redistribution, include, exclude, gates, initial_scale, seed
        )
        self._make(module, options, state, initial_sparsity=None)

    @classmethod
    def from_options(
        cls,
        module: nn.Module,
        options: TopologyOptions,
        *,
        state: Mapping[str, Any] | None = None,
        initial_sparsity: float | None = None,
    ) -> SparseTopology:
        """Return a topology made with these options.

        Args:
            module, state: as in the constructor.
            options: the constructor's other arguments.
            initial_sparsity: what the first masks have, where ``options.sparsity`` is to be reached later. ``None``:
                they have that at once.
        """
        topology = cls.__new__(cls)
        topology._make(module, options, state, initial_sparsity)
        return topology

    def _make(
        self,
        module: nn.Module,
        options: TopologyOptions,
        state: Mapping[str, Any] | None,
        initial_sparsity: float | None,
    ) -> None:
        rules = options.rules()
        first = options.sparsity if initial_sparsity is None else check_fraction("initial_sparsity", initial_sparsity)
        self._density = 1.0 - first
        self._seed = options.seed
        self._scale: InitialScale = find_rule("initial_scale", options.initial_scale, INITIAL_SCALES)
        self._updates = 0
        self._live: int | None = None
        self._parameters = sparsifiable_parameters(module, options.include, options.exclude)
        self._embeddings = embeddings_of(module)
        shapes = {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}
        self._layouts = _layouts(module, shapes, options.gates)
        self._mover = Mover(rules, shapes, self._layouts, options.seed)
        self._awaits_gradients = options.allocation == SNIP and state is None
        if state is None:
            self._masks = self._initial_masks(options.allocation, shapes)
        else:
            self._masks = {name: torch.ones_like(parameter) for name, parameter in self._parameters.items()}
        self._explored = {name: mask.flatten().bool() for name, mask in self._masks.items()}
        signed = "signs" in rules.needs
        self._signs = {name: p.detach().flatten() >= 0 for name, p in self._parameters.items()} if signed else {}
        self._momenta = Momenta(self._parameters if "momenta" in rules.needs else {})
        if state is not None:
            self.load_state_dict(state)
        self.apply_masks()
        if state is None and not options.reads_weights and not self._awaits_gradients:
            self._scale_weights()

    @staticmethod
    def check_options(
        sparsity: float,
        allocation: str | AllocationRule,
        pruning: str | PositionRule,
        growth: str | PositionRule | None,
        redistribution: str | ShareRule | Redistribution,
    ) -> Rules:
        """Find the rules, or raise what the constructor would raise for these options, before there is a module."""
        return TopologyOptions(sparsity, allocation, pruning, growth, redistribution).rules()

    def _initial_masks(
        self, allocation: str | AllocationRule, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Tensor]:
        if allocation == SNIP:
            return {name: torch.ones_like(parameter) for name, parameter in self._parameters.items()}
        if allocation == NONZERO:
            masks = {name: (p.detach() != 0).to(p.dtype) for name, p in self._parameters.items()}
            _check_counts({name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}, shapes)
            return masks
        counts = find_rule("allocation", allocation, ALLOCATIONS)(shapes, self._density)
        _check_counts(counts, shapes)
        masks = {}
        for name, parameter in self._parameters.items():
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
    def needs(self) -> frozenset[str]:
        """What the rules look at besides weights.

        ``"gradients"`` are given to :meth:`update`, and for ``"momenta"`` each step is shown to :meth:`observe`.
        """
        return self._mover.rules.needs

    @property
    def awaits_gradients(self) -> bool:
        """Whether all weights are still live, and :meth:`allocate` is to choose."""
        return self._awaits_gradients

    @property
    def total_weights(self) -> int:
        """How many weights the sparse tensors have room for."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def live_weights(self) -> int:
        """How many of them are live."""
        if self._live is None:  # counted once an update: progress bars ask all the time
            self._live = sum(count_true(mask.flatten().bool()) for mask in self._masks.values())
        return self._live

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
        return self._per_gate({name: mask.flatten().bool() for name, mask in self._masks.items()})

    def gate_densities(self) -> dict[str, dict[str, float]]:
        """For each sparse tensor, each gate's share of live weights, in [0, 1]."""
        sizes = self.gate_sizes
        return {
            name: {gate: live / sizes[name][gate] for gate, live in gates.items()}
            for name, gates in self.live_per_gate().items()
        }

    def explored_per_gate(self) -> dict[str, dict[str, int]]:
        """For each sparse tensor, how many positions of each gate have been live at any time."""
        return self._per_gate(self._explored)

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set every inactive weight to zero, in place."""
        for name, parameter in self._parameters.items():
            self._follow(name, parameter)
            parameter.mul_(self._masks[name])

    @torch.no_grad()
    def _scale_weights(self) -> None:
        """Make the live weights as large as the first masks ask for."""
        for name, parameter in self._parameters.items():
            factor = self._scale(self._masks[name].bool(), parameter in self._embeddings)
            if isinstance(factor, Tensor) or factor != 1.0:
                parameter.mul_(factor)

    def observe(self, parameters: Iterable[Tensor]) -> None:
        """Take note of the gradients of a step, where rules look at their mean. ``parameters`` are those it stepped."""
        self._momenta.observe(parameters)

    @torch.no_grad()
    def allocate(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Choose the live weights by a first gradient: ``round(density · total)`` in all, those of largest ``|w·g|``.

        Args:
            gradients: for each sparse parameter, its dense gradient.

        Raises:
            ValueError: a parameter has no gradient here.
            FloatingPointError: a weight or a gradient is NaN or infinite. The topology is unchanged.
            RuntimeError: the live weights are chosen already.
        """
        if not self._awaits_gradients:
            raise RuntimeError("The live weights are chosen already: `allocate` belongs to `allocation='snip'`.")
        live = self._flat_masks()
        scope = Redistribution(whole_model, whole_model)
        mover = Mover(Rules(saliency, None, scope), self._shapes(), self._layouts, self._seed)
        quantities = self._quantities({"gradients"}, gradients, set(self._parameters))
        mover.move(live, quantities, number=0, rate=0.0, total=round(self._density * self.total_weights))
        self._set_masks(live)
        self.apply_masks()
        self._scale_weights()
        self._explored = {name: flat.clone() for name, flat in live.items()}
        self._awaits_gradients = False

    @torch.no_grad()
    def update(
        self,
        rate: float,
        *,
        density: float | None = None,
        gradients: Mapping[Tensor, Tensor] | None = None,
        trained: Collection[Tensor] | None = None,
    ) -> TopologyUpdate:
        """Prune ``⌈rate · n⌉`` of each pool's ``n`` live weights and regrow as many, at zero.

        The positions just pruned are open to regrowth like any other. A pool whose positions are all live is left as
        it is: nothing can move in it. So is a parameter that is not trained: what it lost it could not learn again.

        Args:
            rate: share of live weights to replace, in [0, 1).
            density: share of all weights that are to be live afterwards, at most what it is now; what is too many is
                pruned first. ``None``: as many as now.
            gradients: for each sparse parameter that is trained, its dense gradient, if rules look at it: see
                :attr:`needs`.
            trained: the parameters that are, others among them or not. ``None``: those that require gradients now.

        Raises:
            ValueError: an argument is out of range or lacks a parameter, or a rule returns something else than asked.
            TypeError: ``rate`` is no number.
            FloatingPointError: a weight, gradient or momentum is NaN or infinite.
            RuntimeError: :meth:`allocate` is to come first.

        Whatever is raised, the topology is unchanged.
        """
        rate = check_fraction("rate", rate)
        if self._awaits_gradients:
            raise RuntimeError("The live weights are not chosen yet: call `allocate` with the first gradient.")
        trains = self._trained(trained)
        quantities = self._quantities(self.needs, gradients, trains)
        number = self._updates + 1
        live = self._flat_masks()
        moving = {name: flat for name, flat in live.items() if name in trains}
        resting = {name: torch.zeros_like(flat) for name, flat in live.items() if name not in moving}
        total = self._total_at(density, resting)
        pruned, regrown = ({**flat, **resting} for flat in self._mover.move(moving, quantities, number, rate, total))
        live.update(moving)
        # Weights that are pruned and regrown at once are zeroed here too: they start anew like every other newborn.
        self._set_masks({name: flat & ~regrown[name] for name, flat in live.items()})
        self.apply_masks()
        self._set_masks(live)
        for name, flat in live.items():
            self._explored[name] |= flat
        for name, signs in self._signs.items():
            generator = generator_for(self._seed, number, f"signs/{name}", signs.device)
            newborn = count_true(regrown[name])
            drawn = torch.randint(2, (newborn,), generator=generator, device=signs.device, dtype=torch.uint8)
            signs.logical_and_(~regrown[name]).logical_or_(expand(drawn.bool(), regrown[name]))
        self._updates = number
        return TopologyUpdate(
            number=number,
            rate=rate,
            pruned=self._per_gate(pruned),
            regrown=self._per_gate(regrown),
            live=self._per_gate(live),
            born={parameter: regrown[name].view(parameter.shape) for name, parameter in self._parameters.items()},
        )

    def _total_at(self, density: float | None, resting: Collection[str]) -> int | None:
        """Return how many weights are to be live at ``density``, but for those of tensors at rest."""
        if density is None:
            return None
        live, total = self.live_weights, round(density * self.total_weights)
        if not 0 < total <= live:
            raise ValueError(
                f"Expected a `density` above 0 and of at most {live / self.total_weights:.6g}, the present one, got "
                f"{density}: an update only lowers it."
            )
        if self._mover.rules.chooses_own_count:
            raise ValueError("This pruning rule chooses how many weights go, and cannot follow a `density`.")
        kept = sum(count_true(self._masks[name].flatten().bool()) for name in resting)
        if len(resting) == len(self._masks):
            return None
        if kept >= total:
            raise ValueError(
                f"Expected a `density` above {kept / self.total_weights:.6g}, that of the live weights of parameters "
                f"that are not trained and therefore keep them, got {density}."
            )
        return total - kept

    def _trained(self, trained: Collection[Tensor] | None) -> set[str]:
        if trained is None:
            return {name for name, parameter in self._parameters.items() if parameter.requires_grad}
        among = set(trained)
        return {name for name, parameter in self._parameters.items() if parameter in among}

    def _quantities(
        self, needed: Collection[str], gradients: Mapping[Tensor, Tensor] | None, trains: Collection[str]
    ) -> dict[str, dict[str, Tensor]]:
        """Return, flattened and found to be finite, the weights and what else rules look at."""
        found: dict[str, Mapping[str, Tensor]] = {"weights": self._parameters, "momenta": self._momenta.means}
        if "gradients" in needed:
            given = gradients or {}
            trained = {name: parameter for name, parameter in self._parameters.items() if name in trains}
            missing = [name for name, parameter in trained.items() if parameter not in given]
            wrong = [name for name, p in trained.items() if p in given and given[p].shape != p.shape]
            if missing:
                raise ValueError(
                    f"The rules of this topology look at gradients, and these have none: {', '.join(missing)}."
                )
            if wrong:
                raise ValueError(f"Expected gradients of their parameters' shapes, got others for {', '.join(wrong)}.")
            found["gradients"] = {name: given[parameter] for name, parameter in trained.items()}
        for quantity, tensors in found.items():
            for name, tensor in tensors.items():
                self._check_finite(quantity, name, tensor)
        flat = {quantity: {n: t.detach().flatten() for n, t in tensors.items()} for quantity, tensors in found.items()}
        return {**flat, "signs": self._signs}

    def _flat_masks(self) -> dict[str, Tensor]:
        for name, parameter in self._parameters.items():
            self._follow(name, parameter)
        return {name: mask.flatten().bool() for name, mask in self._masks.items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(mask.shape) for name, mask in self._masks.items()}

    def _set_masks(self, live: Mapping[str, Tensor]) -> None:
        for name, mask in self._masks.items():
            mask.copy_(live[name].view(mask.shape))
        self._live = None

    def state_dict(self) -> dict[str, Any]:
        """Return what there is to save: tensors, masks among them packed to bits, and plain values."""
        return {
            "updates": self._updates,
            "awaits_gradients": self._awaits_gradients,
            "shapes": {name: list(mask.shape) for name, mask in self._masks.items()},
            "masks": {name: pack_bits(mask) for name, mask in self._masks.items()},
            "explored": {name: pack_bits(flat) for name, flat in self._explored.items()},
            "signs": {name: pack_bits(flat) for name, flat in self._signs.items()},
            "momenta": {name: mean.clone() for name, mean in self._momenta.means.items()},
            "memory": {key: dict(memory) for key, memory in self._mover.memory.items() if memory},
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
            mask.copy_(unpack_bits(state["masks"][name], mask.numel()).view(mask.shape))
        self._live = None
        for name, explored in self._explored.items():
            explored.copy_(unpack_bits(state["explored"][name], explored.numel()))
        for name, signs in self._signs.items():
            if name in state["signs"]:  # else the run goes on with another rule than it had, from the signs of today
                signs.copy_(unpack_bits(state["signs"][name], signs.numel()))
        self._momenta.load_state_dict({n: m for n, m in state["momenta"].items() if n in self._momenta.means})
        self._mover.memory = {key: dict(memory) for key, memory in state["memory"].items()}
        self._updates = int(state["updates"])
        self._awaits_gradients = bool(state["awaits_gradients"])

    def _follow(self, name: str, parameter: nn.Parameter) -> None:
        """Bring what is kept of a tensor to where the parameter has moved since."""
        self._masks[name] = self._masks[name].to(parameter)
        for flat in (self._explored, self._signs):
            if name in flat:
                flat[name] = flat[name].to(parameter.device)
        if name in self._momenta.means:
            self._momenta.follow(name)

    @staticmethod
    def _check_finite(quantity: str, name: str, tensor: Tensor) -> None:
        # A sum is NaN or infinite if any term is, and takes a tenth of the time of looking at each.
        if not math.isfinite(float(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
            raise FloatingPointError(
                f"Parameter {name!r} has {quantity} that are NaN or infinite. Training has diverged: lower the "
                "learning rate or clip gradients, and go on from the last good checkpoint."
            )

    def _per_gate(self, flat: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
        return {
            name: {
                gate: count_true(flat[name][start:stop])
                for gate, start, stop in self._layouts[name].spans(parameter.shape)
            }
            for name, parameter in self._parameters.items()
        }


def _layouts(
    module: nn.Module, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, Any] | None
) -> dict[str, GateLayout]:
    """Return each tensor's gates; a tensor without any is one block, and a layer of its own."""
    gates = find_gates(module, given)
    return {name: gates.get(name) or GateLayout({"all": shape[0]}, layer=name) for name, shape in shapes.items()}


def _difference(saved: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]]) -> str:
    parts = [f"only in the saved one: {name} {saved[name]}" for name in saved if name not in here]
    parts += [f"only here: {name} {here[name]}" for name in here if name not in saved]
    parts += [
        f"{name} is {saved[name]} in the saved one and {here[name]} here"
        for name in saved
        if name in here and saved[name] != here[name]
    ]
    return "; ".join(parts).capitalize() + "."
