"""The rules that a method is made of."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sparse_rnn.sparsity.rules.contract import PositionRule, needed_by
from lightning_sparse_rnn.sparsity.rules.growth import GROWTH
from lightning_sparse_rnn.sparsity.rules.pruning import PRUNING
from lightning_sparse_rnn.sparsity.rules.redistribution import Redistribution, ShareRule, find_redistribution
from lightning_sparse_rnn.utilities.lookup import find_rule, path_of

__all__ = ["Rules"]


@dataclass(frozen=True)
class Rules:
    """The rules of a method's updates. ``grow`` is ``None`` where nothing comes back."""

    prune: PositionRule
    grow: PositionRule | None
    redistribution: Redistribution

    @classmethod
    def find(
        cls,
        pruning: str | PositionRule,
        growth: str | PositionRule | None,
        redistribution: str | ShareRule | Redistribution,
    ) -> Rules:
        """Find them by name or import path.

        Raises:
            ValueError: there is none of a name, a path cannot be imported, or the three do not go together.
        """
        rules = cls(
            find_rule("pruning", pruning, PRUNING),
            None if growth is None else find_rule("growth", growth, GROWTH),
            find_redistribution(redistribution),
        )
        if rules.grow is None and (rules.chooses_own_count or rules.redistribution.share is not None):
            raise ValueError(
                f"`growth=None` goes with a rule that prunes what the sparsity asks for, in pools that keep to "
                f"themselves; got pruning={path_of(pruning)!r} and redistribution={path_of(redistribution)!r}."
            )
        return rules

    @property
    def needs(self) -> frozenset[str]:
        """What they look at besides weights."""
        return needed_by(self.prune) | needed_by(self.grow) | self.redistribution.needs

    @property
    def chooses_own_count(self) -> bool:
        """Whether the pruning rule decides how many weights go."""
        return getattr(self.prune, "chooses_own_count", False)
