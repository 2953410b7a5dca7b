"""What a sparse topology is made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sparse_rnn.sparsity.initial_masks import NONZERO, SNIP
from lightning_sparse_rnn.sparsity.rules.allocation import ALLOCATIONS, AllocationRule
from lightning_sparse_rnn.sparsity.rules.initial_scale import INITIAL_SCALES, InitialScale
from lightning_sparse_rnn.sparsity.rules.method import Rules
from lightning_sparse_rnn.sparsity.rules.positions import PositionRule
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution, ShareRule
from lightning_sparse_rnn.utilities.checks import check_fraction
from lightning_sparse_rnn.utilities.lookup import find_rule

__all__ = ["TopologyOptions"]


@dataclass(frozen=True)
class TopologyOptions:
    """The options of a :class:`~lightning_sparse_rnn.SparseTopology`, which says what each means; checked when made.

    ``include``, ``exclude`` and ``gates`` are kept as plain strings, lists and dicts, whatever sequences and mappings
    they were given as.

    Raises:
        ValueError: an option is out of range or unknown, or rules do not go together.
        TypeError: ``sparsity`` is no number.
    """

    sparsity: float = 0.67
    allocation: str | AllocationRule = "uniform"
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
            "include": _plain(self.include),
            "exclude": _plain(self.exclude),
            "gates": _plain(self.gates),
            "seed": int(self.seed),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        find_rule("allocation", self.allocation, {**ALLOCATIONS, NONZERO: None, SNIP: None})
        find_rule("initial_scale", self.initial_scale, INITIAL_SCALES)
        self.rules()

    def rules(self) -> Rules:
        """Return the rules of its updates."""
        return Rules.find(self.pruning, self.growth, self.redistribution)

    @property
    def reads_weights(self) -> bool:
        """Whether the allocation chooses by the weights that it finds, instead of drawing at random."""
        return self.allocation == NONZERO


def _plain(given: Any) -> Any:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, Mapping):
        return {key: _plain(value) for key, value in given.items()}
    return [_plain(value) for value in given] if isinstance(given, Sequence) else given
