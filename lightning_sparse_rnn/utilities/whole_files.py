"""Files that are either whole or not there."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["replacing", "sync_folder", "write_bytes", "write_csv", "write_json", "write_text"]


@contextmanager
def replacing(path: Path, part: Path | None = None, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write, which takes the place of ``path`` when the block ends.

    Whenever the process dies, ``path`` has either its old content or all of the new. A block that raises leaves the
    old content and nothing else.

    Args:
        path: the file to replace, in a folder that exists.
        part: where the new content stands until it is whole, on the same disk. ``None``: beside ``path``, under a name
            that is used once, so that several processes may write the same file.
        durable: wait for the disk, so that all this holds of a machine that dies, too.

    Raises:
        OSError: the content cannot be written; also if torch writes it, which raises a ``RuntimeError`` then.
    """
    part = part or path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except RuntimeError as error:
        # Where a write fails, what torch raises says nothing of the disk.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk, where system and file system can be asked for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # as some network file systems say of folders
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content``, whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, whole or not at all; a value a row does not have is an empty field."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
