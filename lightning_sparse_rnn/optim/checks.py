"""What SNTASGD refuses: options out of range, masks and saved states of other parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from lightning_sparse_rnn.utilities.checks import check_flags

__all__ = ["check_masks", "check_options", "check_saved"]


def check_options(*, since_birth: Any, maximize: Any, **values: Any) -> None:
    """Raise unless every one of ``values`` is a finite number, or tensor, of at least 0, and the others are flags.

    Raises:
        TypeError: one is no number.
        ValueError: one is out of range.
    """
    check_flags(since_birth=since_birth, maximize=maximize)
    for name, value in values.items():
        if not isinstance(value, (Real, Tensor)):
            raise TypeError(f"Expected `{name}` to be a number, got {value!r}.")
        if not 0.0 <= value < math.inf:  # type: ignore[operator]
            raise ValueError(f"Expected `{name}` to be a finite number of at least 0, got {value}.")


def check_masks(parameters: Sequence[Tensor], masks: Mapping[Tensor, Tensor], born: Mapping[Tensor, Tensor]) -> None:
    """Raise ValueError unless masks and births are for these parameters and in their shapes."""
    if masks and not any(parameter in masks for parameter in parameters):
        raise ValueError("None of the masks is for a parameter of this optimizer. Was it made for another module?")
    for parameter in parameters:
        for name, given in (("mask", masks), ("born", born)):
            if parameter in given and given[parameter].shape != parameter.shape:
                raise ValueError(
                    f"Expected the {name} of a parameter in its shape {tuple(parameter.shape)}, got "
                    f"{tuple(given[parameter].shape)}."
                )


def check_saved(state_dict: Mapping[str, Any], parameters: Sequence[Tensor]) -> list[int]:
    """Return the saved indices of the parameters, in their order.

    Raises:
        ValueError: the state is not one of SNTASGD, or an average has another shape than its parameter.
    """
    if "averaging" not in state_dict:
        raise ValueError(
            "Expected the state of an SNTASGD, with an entry 'averaging', got one with the entries "
            f"{sorted(state_dict)}. It was saved by another optimizer."
        )
    indices = [index for group in state_dict["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=False):  # torch says so where their number differs
        mean = state_dict["state"].get(index, {}).get("mean", parameter)
        if mean.shape != parameter.shape:
            raise ValueError(
                f"Expected the saved average {index} in its parameter's shape {tuple(parameter.shape)}, got "
                f"{tuple(mean.shape)}. It was saved for other parameters, or for the same in another order."
            )
    return indices
