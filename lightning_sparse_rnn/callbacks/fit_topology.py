"""Which topology a fit has: a saved one, the one of the fit before, or a new one."""

from __future__ import annotations

import glob
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse_rnn.callbacks.replaced_parameters import is_of, links_of, resized, told_of_gone
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.optim.masked import trained_parameters
from lightning_sparse_rnn.sparsity.numerics.bits import unpack_bits
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.selection import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.topology import SparseTopology
from lightning_sparse_rnn.utilities.lookup import path_of

__all__ = ["FitTopology", "Origin", "saved_sparsity", "saved_state"]

# A tensor is as sparse as its mask if their densities differ by no more than this.
_AS_SPARSE = 0.1


class Origin(Enum):
    """Where the topology of a fit comes from."""

    SAVED = "a checkpoint, or a copied callback"
    KEPT = "the fit before, of the same module"
    NEW = "the allocation"


@dataclass
class _Loading:
    """A checkpoint that is being loaded: into which module, and whether its run goes on."""

    module: weakref.ref[nn.Module]
    resumes: bool


@dataclass
class _Saved:
    """A topology, and its updates, that waits for its fit: of this module, or of any if that is ``None``."""

    state: Mapping[str, Any]
    updates: list[dict[str, Any]]
    module: weakref.ref[nn.Module] | None = None


def saved_state(path: str | Path, key: str, *, weights_only: bool = True) -> dict[str, Any]:
    """Return the state of a callback in a checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged or has no topology.
    """
    state: dict[str, Any] | None = load_checkpoint(path, weights_only=weights_only).get("callbacks", {}).get(key)
    if not state:
        raise ValueError(
            f"Expected a checkpoint of a run with {key}, got {path}, which has no topology. Where that is because it "
            "was written with `save_weights_only=True`, its non-zero weights are what is left of it: take them with "
            "`allocation='nonzero'`."
        )
    return state


def saved_sparsity(state: Mapping[str, Any]) -> float:
    """Return the sparsity that the topology in a callback's saved state goes on with.

    It is the one that was asked for, where that is what the topology has but for rounding. A ramp, or an allocation
    with densities of its own, has led to another: then it is the share of weights that are not live.
    """
    asked, topology = float(state["options"]["sparsity"]), state["topology"]
    masks = _saved_masks(topology)
    live, total = sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())
    as_asked = topology["awaits_gradients"] or abs(live - (1.0 - asked) * total) <= len(masks)
    return asked if as_asked else 1.0 - live / total


def _saved_masks(topology: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the masks of a saved topology by name: flattened, boolean, on the CPU."""
    return {name: unpack_bits(topology["masks"][name], math.prod(shape)) for name, shape in topology["shapes"].items()}


class FitTopology:
    """Holds the topology of a callback and its updates, from fit to fit.

    Args:
        options: of every topology that is made here.
        initial_sparsity: what a new one has, where ``options.sparsity`` is to be reached later.
    """

    def __init__(self, options: TopologyOptions, initial_sparsity: float | None) -> None:
        self.options = options
        self.initial_sparsity = initial_sparsity
        self.topology: SparseTopology | None = None
        self.updates: list[dict[str, Any]] = []  # of this topology, oldest first
        self._made_with = options  # with what no optimizer trains left out
        self._saved: _Saved | None = None
        self._loading: _Loading | None = None
        self._links: list[tuple[dict[str, Any], str, Any]] = []

    def __getstate__(self) -> dict[str, Any]:
        # A copy has the topology as saved, for the module it is to train.
        state = self.state_dict()
        saved = state and _Saved(state["topology"], state["updates"])
        updates = state["updates"] if state else []
        own = {"topology": None, "updates": updates, "_saved": saved, "_loading": None, "_links": []}
        return {**vars(self), **own}

    @property
    def made(self) -> SparseTopology:
        """The topology.

        Raises:
            RuntimeError: there is none yet.
        """
        if self.topology is None:
            raise RuntimeError(
                "The topology is made when a fit starts, in the process that trains: call `trainer.fit` first. A "
                "strategy that spawns processes leaves it in those; their checkpoints have it."
            )
        return self.topology

    @property
    def reached(self) -> bool:
        """Whether the weights are as sparse as they are to be."""
        if self.initial_sparsity is None:
            return not self.made.awaits_gradients
        return self.enough(self.made.live_weights)

    def enough(self, live: int) -> bool:
        """Return whether with so many live weights they are as sparse as they are to be."""
        return live <= round((1.0 - self.options.sparsity) * self.made.total_weights)

    def state_dict(self) -> dict[str, Any] | None:
        """Return what there is to save, if there is a topology: it, and its updates."""
        if self._saved is not None:
            return {"topology": dict(self._saved.state), "updates": list(self._saved.updates)}
        if self.topology is None:
            return None
        return {"topology": self.topology.state_dict(), "updates": list(self.updates)}

    def expect(self, module: nn.Module, resumes: bool) -> None:
        """Take note that a checkpoint is being loaded into ``module``, to go on with its run or to look at it."""
        self._loading = _Loading(weakref.ref(module), resumes)

    def load(self, state: Mapping[str, Any], updates: Sequence[dict[str, Any]] = ()) -> bool:
        """Take over a saved topology when the next fit of its module begins, and return whether its run goes on.

        Where none goes on, and it is our topology's module that now has the saved weights, our topology is like the
        saved one at once.
        """
        loading = self._loading
        self._saved = _Saved(state, list(updates), None if loading is None else loading.module)
        if loading is not None and not loading.resumes and self._fits(state, loading.module()):
            self._take_over(self._saved)
        elif self.topology is None:
            self.updates = list(updates)  # there is no topology that they would not be of
        return loading is not None and loading.resumes

    def _fits(self, state: Mapping[str, Any], module: nn.Module | None) -> bool:
        """Whether our topology is of this module, and can be like the saved one."""
        if self.topology is None or module is None:
            return False
        parameters = self.topology.parameters
        shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}
        return is_of(parameters, module) and shapes == {name: tuple(p.shape) for name, p in parameters.items()}

    def _take_over(self, saved: _Saved) -> None:
        self.made.load_state_dict(saved.state)
        self.updates = list(saved.updates)

    def forget_loading(self) -> None:
        """Take note that what was loaded is not gone on with any more."""
        self._loading = None

    def made_with(self) -> dict[str, Any]:
        """Return the options that a saved topology keeps, as plain values."""
        first = self.initial_sparsity
        sparsity = self.options.sparsity if first is None else first
        return {"sparsity": sparsity, "allocation": path_of(self.options.allocation)}

    def warn_of_other(self, made_with: Mapping[str, Any]) -> None:
        """Warn of options of ours that a saved topology was not made with."""
        for name, here in self.made_with().items():
            there = made_with[name]
            if there != here:
                rank_zero_warn(
                    f"The checkpoint's topology was made with {name}={there!r} and is kept as it is: {name}={here!r} "
                    "of this SelfishSparseCallback has no effect."
                )

    def rewind(self) -> None:
        """Take over what was loaded since the fit began: the learning rate finder winds it back to its start."""
        if self._saved is not None and self.topology is not None:
            self._take_over(self._saved)
        self._saved = None

    def begin(self, module: nn.Module, optimizers: Sequence[Optimizer], unstepped: bool) -> bool:
        """Make the topology of a fit, or take the one there is, and mask the module with it.

        Args:
            module: the one that is fitted.
            optimizers: those that train it.
            unstepped: whether the Trainer has not taken a step yet.

        Returns:
            Whether this begins a run, and does not go on with one.
        """
        resumes = self._loading is not None and self._loading.resumes
        self._loading = None
        origin = self._choose(module, optimizers)
        self._links = links_of(module, self.made.parameters)
        return origin is Origin.NEW or (unstepped and not resumes)

    def _choose(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> Origin:
        self._made_with = self._without_untrained(module, optimizers)
        saved, self._saved = self._saved, None
        if saved is not None and (saved.module is None or saved.module() is module):
            _refuse_weights_of_another(_saved_masks(saved.state), module)
            self.topology = SparseTopology.from_options(
                module, self._made_with, state=saved.state, initial_sparsity=self.initial_sparsity
            )
            self.updates = list(saved.updates)
            return Origin.SAVED
        if self.topology is not None and is_of(self.topology.parameters, module):
            masks = self.topology.masks
            _refuse_weights_of_another({name: masks[p] for name, p in self.topology.parameters.items()}, module)
            self.topology.apply_masks()
            self._name_what_stays_dense(module)
            return Origin.KEPT
        self.topology = self._new(module)
        return Origin.NEW

    def follow(self, module: nn.Module) -> bool:
        """Take over parameters that were replaced in mid-run, and return whether there were any.

        A new parameter in the old one's shape has its mask. One of another shape keeps the mask where both have
        positions; of the others as large a share is live as of the old one, drawn at random.

        Raises:
            MisconfigurationException: a parameter is gone, or has another name.
        """
        if self.topology is None or all(key in parts and parts[key] is part for parts, key, part in self._links):
            return False
        before = self.topology.parameters
        own = dict(module.named_parameters(remove_duplicate=False))
        if gone := [name for name in before if name not in own]:
            raise MisconfigurationException(told_of_gone(gone, before, own))
        state = dict(self.topology.state_dict())
        changed = {name: (p, own[name]) for name, p in before.items() if own[name] is not p}
        for name, (_, parameter) in changed.items():
            state = resized(state, name, tuple(parameter.shape), self.options.seed)
        include = [glob.escape(name) for name in before]
        self._made_with = replace(self._made_with, include=include, exclude=None)
        self.topology = SparseTopology.from_options(
            module, self._made_with, state=state, initial_sparsity=self.initial_sparsity
        )
        self._links = links_of(module, self.topology.parameters)
        for name, (old, new) in changed.items():
            rank_zero_info(f"{name} was replaced: {tuple(old.shape)} by {tuple(new.shape)}. It is sparse like before.")
        return bool(changed)

    def _new(self, module: nn.Module) -> SparseTopology:
        if not self.options.reads_weights:
            _warn_of_sparse_weights(sparsifiable_parameters(module, self._made_with.include, self._made_with.exclude))
        topology = SparseTopology.from_options(module, self._made_with, initial_sparsity=self.initial_sparsity)
        if self.options.reads_weights and not topology.sparsity:
            rank_zero_warn(
                f"No weight of this module is zero, so with `allocation={self.options.allocation!r}` all of them are "
                "live, and training is dense. For a topology drawn at random, leave `allocation` out."
            )
        return topology

    def _without_untrained(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> TopologyOptions:
        """Return the options that leave out what no optimizer trains: what were pruned there would be lost."""
        include, exclude = self.options.include, self.options.exclude
        trained = trained_parameters(optimizers)
        parameters = sparsifiable_parameters(module, include, exclude)
        untrained = [name for name, parameter in parameters.items() if parameter not in trained]
        if len(untrained) == len(parameters):
            raise MisconfigurationException(
                "SelfishSparseCallback makes sparse what the Trainer's optimizers train, and they have none of: "
                f"{', '.join(untrained)}. Return an optimizer of these from `configure_optimizers`."
            )
        if untrained:
            rank_zero_warn(
                f"No optimizer trains {', '.join(untrained)}: they stay dense. If they are to stay so, say it with "
                "`exclude`, or freeze them with `requires_grad_(False)`."
            )
        patterns = [exclude] if isinstance(exclude, str) else list(exclude or [])
        return replace(self.options, exclude=[*patterns, *(glob.escape(name) for name in untrained)])

    def _name_what_stays_dense(self, module: nn.Module) -> None:
        parameters = sparsifiable_parameters(module, self._made_with.include, self._made_with.exclude)
        if new := [name for name in parameters if name not in self.made.parameters]:
            rank_zero_warn(
                f"{', '.join(new)} could not be sparse when the topology was made and stay dense. To make them "
                "sparse too, train with a new SelfishSparseCallback."
            )


def _refuse_weights_of_another(masks: Mapping[str, Tensor], module: nn.Module) -> None:
    """Raise where the module has weights that are as sparse as these masks and would lose some to them.

    What is less sparse is to become so, and is masked. What is sparser, as an identity matrix or one of zeros, was
    initialised so.
    """
    lost = 0
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in masks and parameter.numel() == masks[name].numel():
            live = parameter.detach().flatten() != 0
            mask = masks[name].flatten().to(live.device, torch.bool)
            if abs(int(live.sum()) - int(mask.sum())) <= _AS_SPARSE * live.numel():
                lost += int((live & ~mask).sum())
    if lost:
        raise MisconfigurationException(
            f"The module has weights of another topology: {lost:,} that are not zero would be lost in the one that "
            "this SelfishSparseCallback has, as if weights of another epoch had been loaded. To go on with these "
            "weights, give the Trainer a new callback with their topology: "
            "`SelfishSparseCallback.from_checkpoint(path)`, or `SelfishSparseCallback(allocation='nonzero')` where the "
            "checkpoint was written with `save_weights_only=True`."
        )


def _warn_of_sparse_weights(parameters: Mapping[str, nn.Parameter]) -> None:
    # A tensor that is zero as a whole was initialised so, as one of the two matrices of a low-rank adapter is.
    live = {name: int(torch.count_nonzero(parameter)) for name, parameter in parameters.items()}
    total = sum(parameters[name].numel() for name, count in live.items() if count)
    zero = total - sum(live.values())
    if zero > total / 4:
        rank_zero_warn(
            f"{zero / total:.0%} of the module's weights are zero already, and a new topology is drawn without regard "
            "to which. To keep the topology they have, take `SelfishSparseCallback.from_checkpoint(path)`, which knows "
            "of live weights that are zero as well, or `allocation='nonzero'`, or pass `ckpt_path=` to `fit`."
        )
