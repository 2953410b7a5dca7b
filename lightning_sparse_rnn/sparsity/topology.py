"""Which weights of a module are live, and how that changes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.sparsity.gates import layouts_of
from lightning_sparse_rnn.sparsity.history import TopologyUpdate
from lightning_sparse_rnn.sparsity.initial_masks import initial_masks, waits_for_gradients
from lightning_sparse_rnn.sparsity.live_weights import LiveWeights
from lightning_sparse_rnn.sparsity.masks import Masks
from lightning_sparse_rnn.sparsity.momenta import Momenta
from lightning_sparse_rnn.sparsity.numerics.sampling import first_draw
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.quantities import Quantities, check_gradients, flattened
from lightning_sparse_rnn.sparsity.rules.contract import AllocationRule, InitialScale, PositionRule, ShareRule
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution
from lightning_sparse_rnn.sparsity.selection import embeddings_of, sparsifiable_parameters
from lightning_sparse_rnn.sparsity.signs import Signs
from lightning_sparse_rnn.sparsity.update import Update, live_at
from lightning_sparse_rnn.utilities.checks import check_fraction

__all__ = ["SparseTopology"]


class SparseTopology:
    """The live weights of a module: exact counts, exact zeros elsewhere (Liu et al. 2021, section 3).

    Every trainable floating-point parameter with two or more dimensions is sparse, but for those of torch's norm layers
    and unless ``include`` or ``exclude`` says otherwise: name time constants or initial states that have two dimensions
    in ``exclude``. A tensor used under several names is one tensor with one mask. Masks live here, outside the module:
    its parameters and its ``state_dict`` stay those of the dense module, with zeros in them.

    Args:
        module: its parameters are masked in place at once.
        sparsity, allocation, pruning, growth, redistribution, include, exclude, gates, initial_scale, seed: see
            :class:`~lightning_sparse_rnn.sparsity.TopologyOptions`.
        state: a saved :meth:`state_dict` to go on from, instead of an allocation.

    >>> lstm = nn.LSTM(8, 8)
    >>> topology = SparseTopology(lstm, sparsity=0.75)
    >>> topology.live_weights, topology.total_weights
    (128, 512)
    >>> update = topology.update(0.5)
    >>> sum(update.regrown["weight_hh_l0"].values()), topology.live_weights
    (32, 128)
    >>> topology
    SparseTopology(128 of 512 weights live (25.0%), in 2 tensors)

    Raises:
        ValueError: as for the options; or a pattern matches nothing, there is nothing to make sparse, or a tensor
            would have no live weight.
        TypeError: ``sparsity`` is no number.
    """

    def __init__(
        self,
        module: nn.Module,
        sparsity: float = 0.67,
        *,
        allocation: str | AllocationRule | Mapping[str, float] = "uniform",
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
        first = options.sparsity if initial_sparsity is None else check_fraction("initial_sparsity", initial_sparsity)
        self._density = 1.0 - first
        self._seed = options.seed
        self._rules = options.rules()
        self._scale = options.scale()
        self._updates = self._first_draw = 0
        self._memory: dict[str, dict[str, float]] = {}
        self._parameters = sparsifiable_parameters(module, options.include, options.exclude)
        self._embeddings = embeddings_of(module)
        self._allocation = options.allocation_rule(module)
        self._masks = Masks(self._parameters, layouts_of(module, self._parameters, options.gates))
        self._signs = Signs(self._parameters if "signs" in self._rules.needs else {}, options.seed)
        self._momenta = Momenta(self._parameters if "momenta" in self._rules.needs else {})
        self._awaits_gradients = waits_for_gradients(self._allocation)
        if state is not None:
            self._load(state, module)
            self.apply_masks()
        elif not self._awaits_gradients:
            self._begin(Quantities({name: p.detach().flatten() for name, p in self._parameters.items()}))
            if options.reads_weights:
                self._first_draw = first_draw(self._masks.flat().values())

    @torch.no_grad()
    def _begin(self, given: Quantities) -> None:
        """Choose the first live weights, and make them as large as the option asks for."""
        live = initial_masks(self._allocation, self._parameters, self._density, self._seed, given)
        self._masks.begin(live)
        self._awaits_gradients = False
        if self._scale is None:
            return
        for name, parameter in self._parameters.items():
            mask = live[name].view(parameter.shape)
            parameter.mul_(self._scale(mask, parameter in self._embeddings))

    # ------------------------------------------------------------------------------------------------- what there is

    def __repr__(self) -> str:
        tensors = len(self._parameters)
        live = LiveWeights(self.live_weights, self.total_weights)
        return f"{type(self).__name__}({live}, in {tensors} tensor{'s' * (tensors != 1)})"

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The sparse parameters by name."""
        return dict(self._parameters)

    @property
    def masks(self) -> dict[Tensor, Tensor]:
        """For each sparse parameter its mask: 1 where live, else 0, in the parameter's shape and dtype.

        These are the topology's own tensors, which the next update changes in place.
        """
        return {parameter: self._masks.by_name[name] for name, parameter in self._parameters.items()}

    @property
    def updates(self) -> int:
        """How many updates there have been."""
        return self._updates

    @property
    def needs(self) -> frozenset[str]:
        """What the rules look at besides weights.

        ``"gradients"`` are given to :meth:`update`, and for ``"momenta"`` each step is shown to :meth:`observe`.
        """
        return self._rules.needs - {"weights"}

    @property
    def awaits_gradients(self) -> bool:
        """Whether all weights are still live, and :meth:`allocate` is to choose."""
        return self._awaits_gradients

    @property
    def total_weights(self) -> int:
        """How many weights the sparse tensors have room for."""
        return self._masks.total

    @property
    def live_weights(self) -> int:
        """How many of them are live."""
        return self._masks.live

    @property
    def sparsity(self) -> float:
        """Share of the sparse tensors' weights that are not live."""
        return 1.0 - self.live_weights / self.total_weights

    @property
    def gate_sizes(self) -> dict[str, dict[str, int]]:
        """For each sparse tensor, how many weights each gate has room for; a tensor without gates is one, ``"all"``."""
        return self._masks.gate_sizes

    def live_per_gate(self) -> dict[str, dict[str, int]]:
        """For each sparse tensor, how many weights of each gate are live."""
        return self._masks.live_per_gate()

    def gate_densities(self) -> dict[str, dict[str, float]]:
        """For each sparse tensor, each gate's share of live weights, in [0, 1]."""
        return self._masks.gate_densities()

    def explored_per_gate(self) -> dict[str, dict[str, int]]:
        """For each sparse tensor, how many positions of each gate have been live at any time."""
        return self._masks.explored_per_gate()

    # ------------------------------------------------------------------------------------------------ what is done

    def apply_masks(self) -> None:
        """Set every inactive weight to zero, in place."""
        self._masks.apply()

    def observe(self, parameters: Iterable[Tensor]) -> None:
        """Take note of the gradients of a step, where rules look at their mean. ``parameters`` are those it stepped."""
        self._momenta.observe(parameters)

    def allocate(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Choose the live weights by a first gradient: those of largest ``|w·g|``, ``round(density · total)`` in all.

        Args:
            gradients: for each sparse parameter, its dense gradient.

        Raises:
            ValueError: a parameter has no gradient here.
            FloatingPointError: a weight or a gradient is NaN or infinite. The topology is unchanged.
            RuntimeError: the live weights are chosen already.
        """
        if not self._awaits_gradients:
            raise RuntimeError("The live weights are chosen already: `allocate` belongs to `allocation='snip'`.")
        self._begin(self._quantities({"gradients"}, self._parameters, gradients))

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
        among = None if trained is None else set(trained)
        moving = {
            name: parameter
            for name, parameter in self._parameters.items()
            if (parameter.requires_grad if among is None else parameter in among)
        }
        quantities = self._quantities(self.needs, moving, gradients)
        number, memory = self._updates + 1, copy.deepcopy(self._memory)
        total = None if density is None else live_at(density, self._masks, moving, self._rules)
        live = self._masks.flat()
        draw, masks = self._first_draw + number, self._masks
        update = Update(self._rules, masks.shapes, masks.layouts, quantities, rate, total, draw, self._seed, memory)
        pruned, regrown = update.apply({name: live[name] for name in moving})  # in place
        for name in live.keys() - moving.keys():
            pruned[name], regrown[name] = torch.zeros_like(live[name]), torch.zeros_like(live[name])
        self._masks.move(live, born=regrown)
        self._signs.draw(regrown, draw)
        self._updates, self._memory = number, memory
        return TopologyUpdate(
            number=number,
            rate=rate,
            pruned=self._masks.per_gate(pruned),
            regrown=self._masks.per_gate(regrown),
            live=self._masks.per_gate(live),
            born={parameter: regrown[name].view(parameter.shape) for name, parameter in self._parameters.items()},
        )

    def _quantities(
        self, needed: Collection[str], moving: Mapping[str, nn.Parameter], gradients: Mapping[Tensor, Tensor] | None
    ) -> Quantities:
        """Return what rules look at; all weights and momenta are checked, and of gradients those of what moves."""
        found = check_gradients(moving, gradients) if "gradients" in needed else None
        return Quantities(
            weights=flattened("weights", self._parameters),
            momenta=flattened("momenta", self._momenta.by_name()) if "momenta" in needed else None,
            gradients=None if found is None else flattened("gradients", found),
            signs=self._signs.flat() if "signs" in needed else None,
        )

    # --------------------------------------------------------------------------------------------------------- saved

    def state_dict(self) -> dict[str, Any]:
        """Return what there is to save: tensors, masks among them packed to bits, and plain values."""
        return {
            "updates": self._updates,
            "first_draw": self._first_draw,
            "awaits_gradients": self._awaits_gradients,
            **self._masks.state_dict(),
            "signs": self._signs.state_dict(),
            "momenta": self._momenta.state_dict(),
            "memory": {key: dict(memory) for key, memory in self._memory.items() if memory},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved masks. The weights are not touched: call :meth:`apply_masks` where they may not fit.

        Raises:
            ValueError: the state belongs to other tensors; the message names them. The topology is unchanged.
        """
        self._load(state, None)

    def _load(self, state: Mapping[str, Any], module: nn.Module | None) -> None:
        self._masks.load_state_dict(state, module)
        self._signs.load_state_dict(state["signs"])
        self._momenta.load_state_dict(state["momenta"])
        self._memory = {key: dict(memory) for key, memory in state["memory"].items()}
        self._updates = int(state["updates"])
        self._first_draw = int(state.get("first_draw", 0))
        self._awaits_gradients = bool(state["awaits_gradients"])
