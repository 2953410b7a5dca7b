"""The three texts of a corpus: the conventions they are in, and finding and reading them in a folder."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["EOS", "UNKNOWN", "Texts", "find_texts", "list_folder", "read_text"]

#: What stands for a word that is not in the vocabulary, also in the files of published corpora.
UNKNOWN = "<unk>"
#: The token at the end of every line. No file has it: it stands for the line break.
EOS = "<eos>"


class Texts(NamedTuple):
    """The parts of a corpus as text: one sentence or paragraph a line, tokens between white space."""

    train: str
    valid: str
    test: str


def find_texts(root: Path, patterns: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """The file of each part in `root`: what the first of the part's shell patterns with a match finds.

    Parts without a file are left out.

    Raises:
        ValueError: if a pattern matches several files.
    """
    found = {}
    for part, candidates in patterns.items():
        for pattern in candidates:
            matches = sorted(path for path in root.glob(pattern) if path.is_file())
            if len(matches) > 1:
                names = ", ".join(path.name for path in matches)
                raise ValueError(f"Expected one file of {part} text in {root}, got {names}. Leave one of them.")
            if matches:
                found[part] = matches[0]
                break
    return found


def list_folder(root: Path) -> str:
    """What stands in `root`, in words for an error message."""
    if not root.is_dir():
        return "there is no such folder" + ("" if root.is_absolute() else f" in {Path.cwd()}")
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    return f"the folder holds {', '.join(names[:20]) or 'nothing'}{', …' if len(names) > 20 else ''}"


def read_text(path: Path) -> str:
    """The text of a file, which may be compressed with gzip if its name ends in `.gz`.

    Raises:
        ValueError: if it is not UTF-8, or holds nothing but white space.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig") as file:
                text = file.read()
        else:
            text = path.read_text(encoding="utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"Expected text compressed with gzip in {path}, got something else ({error}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected UTF-8 text in {path}, got something else ({error}). Convert it.") from error
    if not text.strip():
        raise ValueError(f"Expected text in {path}, but the file is empty.")
    return text
