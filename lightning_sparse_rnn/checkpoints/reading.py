"""Checkpoint files: found again after a crash, and checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_sparse_rnn.checkpoints.faults import find_fault, has_end
from lightning_sparse_rnn.checkpoints.nested import mapped
from lightning_sparse_rnn.checkpoints.packing import KEY, unpack
from lightning_sparse_rnn.checkpoints.part_files import PartError, read_parts, with_parts

__all__ = ["find_last_good", "load_checkpoint", "peek"]


def find_last_good(folder: str | Path) -> Path | None:
    """Return the checkpoint in ``folder`` that training should go on from, or ``None`` if there is none.

    Of the ``*.ckpt`` files that are whole, it is the one after the most optimizer steps; of several, the one written
    last. Files that are not whole are passed over with a warning, and those that hold only weights silently.

    Raises:
        PartError: of that checkpoint a part is missing or damaged, which no crash does.
    """
    found = []
    for path in Path(folder).glob("*.ckpt"):
        try:
            checkpoint = peek(path)
            if "optimizer_states" in checkpoint:
                found.append((checkpoint["global_step"], path.stat().st_mtime_ns, path))
        except (OSError, ValueError) as error:
            _warn_of_passing_over(path, error)
    for _, _, path in sorted(found, reverse=True):
        try:
            _check_whole(path)
            read_parts(peek(path), path)
            return path
        except PartError:
            raise
        except ValueError as error:
            _warn_of_passing_over(path, error)
    return None


def peek(path: Path) -> dict[str, Any]:
    """Open a checkpoint without reading its tensors, or making sure that they are whole.

    Of a compact one the large tensors stay as they are in the file, or in its parts: see ``checkpoints/packing.py``.

    Raises:
        OSError: there is no such file.
        ValueError: as :func:`load_checkpoint`, as far as that shows.
    """
    return _read(path, weights_only=True, map_location="cpu", mmap=True)


def load_checkpoint(path: str | Path, *, weights_only: bool = True, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, and nothing from it but tensors and plain values.

    Args:
        path: a file that a Trainer wrote; its parts, if it has any, are beside it.
        weights_only: ``False`` reads other objects too, such as paths and OmegaConf's configs among the
            hyperparameters. Doing so runs whatever code the file holds: only for files whose makers you trust.
        map_location: where tensors go, as ``torch.load`` has it. A function places no tensors of a compact checkpoint,
            which come to the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short or damaged, is no checkpoint of Lightning, or holds other objects, and
            reading those could run any code; or a part of it is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    _check_whole(path)
    checkpoint = _read(path, weights_only=weights_only, map_location=map_location)
    if KEY not in checkpoint:
        return checkpoint
    if map_location != "cpu":  # where it is unpacked
        checkpoint = _read(path, weights_only=weights_only, map_location="cpu")
    try:
        return _placed(unpack(with_parts(checkpoint, path)), map_location)
    except PartError:
        raise
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _placed(checkpoint: dict[str, Any], map_location: Any) -> dict[str, Any]:
    """Move tensors from the CPU to where a location or a table of such has them; a function leaves them there."""
    to = map_location.get("cpu") if isinstance(map_location, Mapping) else map_location
    if not isinstance(to, (str, torch.device)):
        return checkpoint
    placed: dict[str, Any] = mapped(checkpoint, lambda value: value.to(to) if isinstance(value, Tensor) else None)
    return placed


def _read(path: Path, **options: Any) -> dict[str, Any]:
    if not has_end(path):
        raise _damaged(path, "its end is missing")
    try:
        checkpoint = torch.load(path, **options)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ...
        raise ValueError(
            f"The checkpoint {path} cannot be read. Either it is no file of torch, or it holds more than tensors and "
            "plain values: check the hyperparameters that the module saves. If you trust whoever made the file, pass "
            f"weights_only=False. torch says: {error}"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        entries = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(
            f"Expected a checkpoint of Lightning, with the entries 'state_dict' and 'global_step', got {entries} in "
            f"{path}."
        )
    return checkpoint


def _check_whole(path: Path) -> None:
    fault = find_fault(path)
    if fault is not None:
        raise _damaged(path, fault)


def _damaged(path: Path, how: str) -> ValueError:
    return ValueError(
        f"The checkpoint {path} ({path.stat().st_size} bytes) is cut short or damaged: {how}. The process or the "
        "machine may have died while it was written. Use an earlier one."
    )


def _warn_of_passing_over(path: Path, error: Exception) -> None:
    rank_zero_warn(f"Passing over the checkpoint {path}: {error}")
