"""The files of a checkpoint's parts: beside its own, found by their token, and removed when no checkpoint has it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.checkpoints.faults import find_fault
from lightning_sparse_rnn.checkpoints.parts import TOKEN, join, parts_of
from lightning_sparse_rnn.utilities.whole_files import sync_folder

__all__ = ["PartError", "part_path", "read_parts", "remove_parts_of_none", "with_parts"]


class PartError(ValueError):
    """A part of a checkpoint is missing, damaged, or another's.

    A crash does not do that: a checkpoint is in its place only after its parts are. Someone has copied one without the
    other, or the disk is broken.
    """


def part_path(path: Path, token: str, index: int, count: int) -> Path:
    """Return the file of one part, by its index from 0, of the checkpoint that ``path`` is to name.

    No checkpoint is looked for under such a name, which does not end as those of checkpoints do.
    """
    return path.with_name(f"{path.name}.{token}.{index + 1}of{count}")


def with_parts(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the packed checkpoint of which ``path`` is the file, read already; the same one if it has no parts.

    Raises:
        PartError: a part is missing, damaged, or another's.
        ValueError: the checkpoint itself is damaged.
    """
    parts = read_parts(checkpoint, path)
    return join(checkpoint, parts) if parts else checkpoint


def read_parts(checkpoint: dict[str, Any], path: str | Path) -> list[Tensor]:
    """Return the bytes of all parts of the checkpoint in ``path``, checked and mapped into memory; none without parts.

    Raises:
        PartError: a part is missing, damaged, or another's.
        ValueError: the checkpoint itself is damaged.
    """
    found = parts_of(checkpoint)
    if found is None:
        return []
    if "://" in str(path):
        raise PartError(
            f"The checkpoint {path} is in parts, which are read from local folders alone. Copy all of its files to one."
        )
    token, sizes = found
    files = _find(Path(path), token, len(sizes))
    return [_read(file, Path(path), token, index, sizes[index]) for index, file in enumerate(files)]


def remove_parts_of_none(path: Path) -> None:
    """Remove the files of parts that were written for ``path`` and that no checkpoint has, neither it nor those beside.

    Raises:
        OSError: a checkpoint cannot be looked at, or a file not be removed.
    """
    pattern = re.compile(rf"{re.escape(path.name)}\.({TOKEN})\.\d+of\d+(\.part)?")
    matches = [match for each in path.parent.iterdir() if (match := pattern.fullmatch(each.name))]
    # Others may be copies of an earlier one: Lightning makes such for `save_last="link"` where there are no links.
    for checkpoint in (path, *path.parent.glob("*.ckpt")):
        if not matches:
            return
        speaks_of = _pickled(checkpoint)
        matches = [match for match in matches if match[1].encode() not in speaks_of]
    if matches:
        sync_folder(path.parent)  # what is to have taken their place must be there even if the machine dies
    for match in matches:
        path.with_name(match.string).unlink(missing_ok=True)


def _find(path: Path, token: str, count: int) -> list[Path]:
    # By token, since people rename files; where a link leads, since Lightning makes some.
    folders = dict.fromkeys([path.parent, path.resolve().parent])
    names = [part_path(Path("*"), token, index, count).name for index in range(count)]
    found = [next((file for folder in folders for file in sorted(folder.glob(name))), None) for name in names]
    missing = [part_path(path, token, index, count).name for index in range(count) if found[index] is None]
    if missing:
        raise PartError(
            f"The checkpoint {path} is in {count} parts, of which {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not beside it. Copy all files {path.name}* from the folder where "
            f"it was written. If its parts are lost, remove {path} to go on without it."
        )
    return [file for file in found if file is not None]


def _read(file: Path, path: Path, token: str, index: int, size: int) -> Tensor:
    fault, part = find_fault(file), None
    if fault is None:
        try:
            part = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
            content: Tensor = part["bytes"]
            if (part["token"], part["index"]) != (token, index):
                fault = f"it is part {part['index'] + 1} of a checkpoint with the token {part['token']}"
            elif content.dtype != torch.uint8 or content.shape != (size,):
                fault = f"there are {tuple(content.shape)} values of {content.dtype} instead of {size} bytes"
        except Exception as error:  # as torch raises them, or of what is no part
            fault = str(error)
    if fault is not None:
        raise PartError(
            f"The file {file} ({file.stat().st_size} bytes) is not the part that the checkpoint {path} was written "
            f"with: {fault}. Copy it again from where it was written. If it is lost, remove {path} to go on without it."
        )
    return content


def _pickled(path: Path) -> bytes:
    """The pickled values of a checkpoint, texts among them as they are; nothing if it is none."""
    if not path.is_file():
        return b""
    try:
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    except OSError:
        raise
    except Exception:  # whatever damaged files make zipfile raise
        return b""
