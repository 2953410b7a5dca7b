"""The masks that training starts with."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = []


#: ``allocation`` that takes the module's own non-zero weights for its live ones.
NONZERO = "nonzero"


#: ``allocation`` that starts dense and keeps, at the first gradient, what ``|w·g|`` says matters most.
SNIP = "snip"


_DRAW_OF_INITIAL_MASKS = 0


def _check_counts(counts: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a ``ValueError`` unless every tensor has a live weight, and no more than it has room for."""
    if counts.keys() != shapes.keys():
        raise ValueError(f"Expected an allocation to return counts for {', '.join(shapes)}, got {dict(counts)}.")
    empty = [f"{name} {shapes[name]}" for name, count in counts.items() if count == 0]
    if empty:
        raise ValueError(
            f"These tensors would have no live weight: {', '.join(empty)}. Lower the sparsity, or leave them dense "
            "with `exclude`."
        )
    wrong = [
        f"{count!r} for {name} {shapes[name]}"
        for name, count in counts.items()
        if not isinstance(count, int) or not 0 < count <= math.prod(shapes[name])
    ]
    if wrong:
        raise ValueError(f"Expected an allocation to return counts that the tensors hold, got {'; '.join(wrong)}.")
