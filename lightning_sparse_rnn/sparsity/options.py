"""What a sparse topology is made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_sparse_rnn.sparsity.rules.allocation import find_allocation
from lightning_sparse_rnn.sparsity.rules.contract import (
    AllocationRule,
    InitialScale,
    PositionRule,
    ShareRule,
    needed_by,
)
from lightning_sparse_rnn.sparsity.rules.initial_scale import INITIAL_SCALES
from lightning_sparse_rnn.sparsity.rules.method import Rules
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution
from lightning_sparse_rnn.sparsity.selection import names_of
from lightning_sparse_rnn.utilities.checks import check_fraction
from lightning_sparse_rnn.utilities.lookup import find_rule

__all__ = ["TopologyOptions"]


@dataclass(frozen=True)
class TopologyOptions:
    """The options of a :class:`~lightning_sparse_rnn.SparseTopology`, checked when they are made.

    Args:
        sparsity: share of weights that are not live, in [0, 1). Unused with ``allocation="nonzero"``.
        allocation: how many live weights each tensor gets: ``"uniform"``, ``"erdos_renyi"``, ``"erdos_renyi_kernel"``;
            which positions is uniformly random. ``"nonzero"`` takes the weights that are not zero, dense or sparse.
            ``"snip"`` (Lee et al. 2019) leaves all of them live until the topology has a gradient to choose by.
            Or densities in (0, 1] by shell pattern over parameter names, as in ``{"*embedding*": 0.15}``, of which the
            first that matches counts; all other tensors get one density, with which the total is that of ``sparsity``.
        pruning: which live weights an update prunes: ``"magnitude"`` (the paper), ``"signed_magnitude"``,
            ``"sign_flip"``, ``"threshold"``, ``"saliency"``.
        growth: which inactive weights an update regrows: ``"random"`` (the paper), ``"random_elsewhere"`` (not where
            it has just pruned), ``"gradient"``, ``"momentum"``, or ``None``: no weight comes back, and an
            update only prunes what is too many for its ``density``.
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

    Allocation, pruning, growth, redistribution and initial scale can also be rules of your own: functions, or their
    import paths as in ``"my_rules.largest_row"``. What each is given and returns is listed in
    :mod:`~lightning_sparse_rnn.sparsity.rules.contract`.

    Patterns, ``gates`` and densities are kept as plain strings, lists and dicts, whatever sequences and mappings they
    were given as.

    >>> TopologyOptions(sparsity=67)
    Traceback (most recent call last):
    ValueError: Expected `sparsity` in [0, 1), got 67. Did you mean 0.67?

    Raises:
        ValueError: an option is out of range or unknown, or rules do not go together.
        TypeError: ``sparsity`` is no number.
    """

    sparsity: float = 0.67
    allocation: str | AllocationRule | Mapping[str, float] = "uniform"
    pruning: str | PositionRule = "magnitude"
    growth: str | PositionRule | None = "random"
    redistribution: str | ShareRule | Redistribution = "gates"
    include: str | Sequence[str] | None = None
    exclude: str | Sequence[str] | None = None
    gates: Mapping[str, Any] | None = None
    initial_scale: str | InitialScale = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        plain = {
            "sparsity": check_fraction("sparsity", self.sparsity),
            "allocation": _plain(self.allocation),
            "include": _plain(self.include),
            "exclude": _plain(self.exclude),
            "gates": _plain(self.gates),
            "seed": int(self.seed),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        find_allocation(self.allocation)
        self.rules()
        find_rule("initial_scale", self.initial_scale, INITIAL_SCALES)

    def rules(self) -> Rules:
        """Return the rules of its updates."""
        return Rules.find(self.pruning, self.growth, self.redistribution)

    def allocation_rule(self, module: nn.Module) -> AllocationRule:
        """Return the rule of its first masks; patterns in it are over the names of the module's parameters."""
        return find_allocation(self.allocation, names_of(module))

    def scale(self) -> InitialScale | None:
        """Return what scales its first live weights, if anything does."""
        scale: InitialScale = find_rule("initial_scale", self.initial_scale, INITIAL_SCALES)
        return None if self.reads_weights or scale is INITIAL_SCALES["none"] else scale

    @property
    def reads_weights(self) -> bool:
        """Whether the allocation chooses by the weights that it finds, which are trained, and draws nothing."""
        return needed_by(find_allocation(self.allocation)) == {"weights"}


def _plain(given: Any) -> Any:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, Mapping):
        return {key: _plain(value) for key, value in given.items()}
    return [_plain(value) for value in given] if isinstance(given, Sequence) else given
