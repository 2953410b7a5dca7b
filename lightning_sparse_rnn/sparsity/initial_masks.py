"""The masks that training starts with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_sparse_rnn.sparsity.numerics.compaction import count_true
from lightning_sparse_rnn.sparsity.numerics.sampling import choose, generator_for
from lightning_sparse_rnn.sparsity.quantities import Quantities
from lightning_sparse_rnn.sparsity.rules.contract import AllocationRule, needed_by
from lightning_sparse_rnn.utilities.checks import is_whole

__all__ = ["initial_masks", "waits_for_gradients"]

_NUMBER_OF_THE_DRAW = 0  # updates draw under numbers from 1 on


def waits_for_gradients(rule: AllocationRule) -> bool:
    """Whether all weights stay live until there is a first gradient to choose by."""
    return "gradients" in needed_by(rule)


def initial_masks(
    rule: Any, parameters: Mapping[str, nn.Parameter], density: float, seed: int, given: Quantities
) -> dict[str, Tensor]:
    """Return masks by name, flattened: those that the rule chooses, or as many as it says at random.

    Args:
        rule: an :data:`~lightning_sparse_rnn.sparsity.rules.contract.AllocationRule`.
        parameters: by name, to be made sparse.
        density: of all of them, in (0, 1].
        seed: of what is drawn.
        given: what the rule needs.

    Raises:
        ValueError: the rule returned something else than was asked for, or would leave a tensor without live weights.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if needed_by(rule):
        masks: dict[str, Tensor] = dict(rule(given, density))
        _check_masks(masks, shapes)
        # What looks at gradients chooses freely between tensors, and may find one of no use.
        if not waits_for_gradients(rule):
            _check_counts({name: count_true(mask) for name, mask in masks.items()}, shapes)
        return masks
    counts = rule(shapes, density)
    _check_counts(counts, shapes)
    return {
        name: choose(parameter.numel(), counts[name], generator_for(seed, _NUMBER_OF_THE_DRAW, name, parameter.device))
        for name, parameter in parameters.items()
    }


def _check_masks(masks: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    wanted = {name: ("torch.bool", (math.prod(shape),)) for name, shape in shapes.items()}
    got = {name: (str(mask.dtype), tuple(mask.shape)) for name, mask in masks.items()}
    if got != wanted:
        raise ValueError(f"Expected an allocation to return the boolean masks {wanted}, got {got}.")


def _check_counts(counts: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
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
        if not is_whole(count) or count > math.prod(shapes[name])
    ]
    if wrong:
        raise ValueError(f"Expected an allocation to return counts that the tensors hold, got {'; '.join(wrong)}.")
