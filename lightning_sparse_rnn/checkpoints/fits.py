"""Whether a checkpoint is of a given module and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

__all__ = ["check_fits", "check_text"]


_LISTED = 8


def check_fits(checkpoint: Mapping[str, Any], module: nn.Module, *, strict: bool = True) -> None:
    """Make sure that ``module`` can load a checkpoint's ``state_dict``.

    Args:
        strict: it is to have all the tensors that the module has, and no others. Otherwise only the shapes of those
            that both have must agree.

    Raises:
        ValueError: it cannot; the message names the tensors in which the two differ.
    """
    saved, here = _shapes(checkpoint["state_dict"]), _shapes(module.state_dict())
    parts = [
        _listed("it lacks", (f"{name} {here[name]}" for name in here if strict and name not in saved)),
        _listed("only it has", (f"{name} {saved[name]}" for name in saved if strict and name not in here)),
        _listed(
            "shapes differ in",
            (
                f"{name}, {saved[name]} there and {here[name]} here"
                for name in saved
                if name in here and saved[name] != here[name]
            ),
        ),
    ]
    if any(parts):
        raise ValueError(
            f"The checkpoint is of another model than this {type(module).__name__}: "
            f"{'; '.join(part for part in parts if part)}. Make the model as it was made for the run that saved it."
        )


def check_text(checkpoint: Mapping[str, Any], data: LightningDataModule) -> None:
    """Make sure that a checkpoint is of the text of ``data``, as the Trainer does that loads it.

    Raises:
        ValueError: words have other ids there.
    """
    name = type(data).__qualname__
    if name in checkpoint:  # one without was saved outside of a Trainer
        data.load_state_dict(checkpoint[name])


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items() if isinstance(tensor, Tensor)}


def _listed(what: str, items: Iterable[str]) -> str:
    found = list(items)
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"{what} {', '.join(found[:_LISTED])}{more}" if found else ""
