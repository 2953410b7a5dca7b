"""Checkpoint files: written whole, found again after a crash, and checked before they are used."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_sparse_rnn.files import replacing

__all__ = ["WholeFileCheckpointIO", "check_fits", "check_text", "find_last_good", "load_checkpoint", "peek"]

_LISTED = 8


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that a file has its old content or all of the new, whenever the process or machine dies.

    Lightning writes to the system's folder for temporary files and moves the file from there, which is a copy where
    that folder is on another disk: a run killed meanwhile has lost the old checkpoint and not got the new one. This
    class writes beside the checkpoint, under its name with ``.part`` appended, and waits for the disk. Checkpoints that
    are not local files are written Lightning's way. Use it with ``Trainer(plugins=[WholeFileCheckpointIO()])``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            self.write(lambda file: torch.save(checkpoint, file), Path(path))

    def write(self, content: Callable[[BinaryIO], Any], path: Path) -> None:
        """Write a local file, whole or not at all, by calling ``content`` with it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that stays the same: what a killed process leaves is written over, and does not fill the disk.
        with replacing(path, path.with_name(f"{path.name}.part"), durable=True) as file:
            content(file)


def find_last_good(folder: str | Path) -> Path | None:
    """Return the checkpoint in ``folder`` that training should go on from, or ``None`` if there is none.

    Of the ``*.ckpt`` files that are whole, it is the one after the most optimizer steps; of several, the one written
    last. Files that are not whole are passed over with a warning, and those that hold only weights silently.
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
            return path
        except ValueError as error:
            _warn_of_passing_over(path, error)
    return None


def peek(path: Path) -> dict[str, Any]:
    """Open a checkpoint without reading its tensors, or making sure that they are whole.

    Raises:
        OSError: there is no such file.
        ValueError: as :func:`load_checkpoint`, as far as that shows.
    """
    return _read(path, mmap=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, and nothing from it but tensors and plain values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short or damaged, is no checkpoint of Lightning, or holds other objects, and
            reading those could run any code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    _check_whole(path)
    return _read(path, mmap=False)


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


def _read(path: Path, mmap: bool) -> dict[str, Any]:
    _check_end(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ...
        raise ValueError(
            f"The checkpoint {path} cannot be read. Either it is no file of torch, or it holds more than tensors and "
            f"plain values: check the hyperparameters that the module saves. torch says: {error}"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        entries = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(
            f"Expected a checkpoint of Lightning, with the entries 'state_dict' and 'global_step', got {entries} in "
            f"{path}."
        )
    return checkpoint


def _check_end(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "its end is missing")


def _check_whole(path: Path) -> None:
    """Compare a file's contents with its checksums, which torch does not do when it reads."""
    _check_end(path)
    try:
        with zipfile.ZipFile(path) as archive:
            checksums = any(record.CRC for record in archive.infolist())  # torch can be told to write none
            record = archive.testzip() if checksums else None
    except Exception as error:  # whatever damaged headers make zipfile raise
        raise _damaged(path, str(error)) from error
    if record is not None:
        raise _damaged(path, f"{record} is not what was written")


def _damaged(path: Path, how: str) -> ValueError:
    return ValueError(
        f"The checkpoint {path} ({path.stat().st_size} bytes) is cut short or damaged: {how}. The process or the "
        "machine may have died while it was written. Use an earlier one."
    )


def _warn_of_passing_over(path: Path, error: Exception) -> None:
    rank_zero_warn(f"Passing over the checkpoint {path}: {error}")
