"""Hyperparameters as checkpoints can hold them: nothing that reading would have to import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

__all__ = ["plain"]


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
