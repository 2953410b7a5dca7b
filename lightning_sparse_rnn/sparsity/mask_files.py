"""Topologies as files: one bit per position."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits, unpack_bits
from lightning_sparse_rnn.utilities.whole_files import replacing

__all__ = ["load_masks", "save_masks"]

_MASK, _SHAPE = "mask ", "shape "


def save_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
    """Write masks by name: the file is whole or not there. Any tensor will do; what is not zero is live."""
    arrays: dict[str, Any] = {}
    for name, mask in masks.items():
        arrays[_MASK + name] = pack_bits(mask).numpy()
        arrays[_SHAPE + name] = np.array(mask.shape)
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def load_masks(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read what :func:`save_masks` wrote: boolean arrays by name.

    Args:
        path: the file.
        names: which masks to read; those that are not there are left out. ``None``: all of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut short, or holds something else.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            shapes = {name[len(_SHAPE) :]: tuple(arrays[name]) for name in arrays.files if name.startswith(_SHAPE)}
            return {
                name: unpack_bits(torch.from_numpy(arrays[_MASK + name]), math.prod(shape)).numpy().reshape(shape)
                for name, shape in shapes.items()
                if names is None or name in names
            }
    except (zipfile.BadZipFile, KeyError, TypeError, AttributeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no file of masks, or is cut short: {error}") from error
