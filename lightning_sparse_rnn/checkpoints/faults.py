"""Whether a file of torch is as it was written, which torch does not ask when it reads."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["find_fault", "has_end"]


def has_end(path: Path) -> bool:
    """Whether a file has the end that it gets when all of it has been written."""
    return zipfile.is_zipfile(path)


def find_fault(path: Path) -> str | None:
    """Compare a file's contents with its checksums, and say what is wrong; ``None`` if nothing is."""
    if not has_end(path):
        return "its end is missing"
    try:
        with zipfile.ZipFile(path) as archive:
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                return "it is compressed, which torch does not do"
            checksums = any(record.CRC for record in archive.infolist())  # torch can be told to write none
            record = archive.testzip() if checksums else None
    except Exception as error:  # whatever damaged headers make zipfile raise
        return str(error)
    return f"{record} is not what was written" if record is not None else None
