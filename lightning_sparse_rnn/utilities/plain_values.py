"""Values that need no import to be read: how hyperparameters become so, and whether those of a file are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

__all__ = ["check_plain", "plain"]

# Configs nest three or four deep.
_DEEPEST = 20


def plain(value: Any) -> Any:
    """Return ``value`` in dicts, lists and plain values, whatever of it OmegaConf, NumPy or pathlib made."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def check_plain(where: str, value: Any, depth: int = 0) -> None:
    """Make sure that a value from a file is nothing but a number, text, ``None``, or lists and dicts of these.

    What Hydra, OmegaConf or Lightning would act on is refused at any depth: keys that begin with an underscore, such as
    ``_target_``, and text with an interpolation, such as ``${oc.env:HOME}``.

    Args:
        where: the value's dotted name, for the message.

    Raises:
        ValueError: it is something else; the message names it and what it is.
    """
    if depth > _DEEPEST:
        raise _refused(where, f"values nested more than {_DEEPEST} deep")
    # Types are compared, not classes: a class derived from a plain one may do anything.
    if value is None or type(value) in (bool, int, float):
        return
    if type(value) is str:
        if "${" in value:
            raise _refused(where, f"the interpolation {value!r}")
    elif type(value) in (list, tuple):
        for index, each in enumerate(value):
            check_plain(f"{where}[{index}]", each, depth + 1)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if type(key) is not str or key.startswith("_"):
                raise _refused(where, f"the key {key!r}")
            check_plain(f"{where}.{key}", each, depth + 1)
    else:
        raise _refused(where, f"an object of the type {type(value).__name__}")


def _refused(where: str, what: str) -> ValueError:
    return ValueError(
        f"Expected `{where}` of a file to be a plain value, got {what}, which could run code of the file's choice. If "
        "you trust whoever made the file, pass trusted=True, or --trust on the command line."
    )
