"""Where text comes from: sources by name, each giving a train, a valid and a test text."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from pathlib import Path

from lightning_sparse_rnn.data.language_reference import language_reference
from lightning_sparse_rnn.data.published import PUBLISHED
from lightning_sparse_rnn.data.texts import Texts, find_texts, list_folder, read_text
from lightning_sparse_rnn.utilities.caching import cache_folder

__all__ = ["SHARES", "SOURCES", "check_shares", "check_source", "load_texts"]

SOURCES = ("pydoc", *PUBLISHED, "folder")
#: Of one file, how much is training, validation and test text.
SHARES = (0.8, 0.1, 0.1)
# A line that ends within this part of the text is near.
_NEAR = 50


def check_source(source: str, root: str | Path | None) -> None:
    """Raise ValueError if there is no such source, or if `root` does not go with it."""
    if source not in SOURCES:
        raise ValueError(f"Expected `source` to be one of {', '.join(SOURCES)}, got {source!r}.")
    if source == "folder" and root is None:
        raise ValueError("Expected a folder of text with source 'folder', got none. Give it as `root`.")
    if source == "pydoc" and root is not None:
        raise ValueError(f"Expected no `root` with source 'pydoc', got {root}. For text of your own, use 'folder'.")


def check_shares(shares: Sequence[float]) -> None:
    """Raise ValueError unless there are three shares above 0 that make 1."""
    positive = isinstance(shares, Sequence) and [isinstance(share, Real) and share > 0 for share in shares]
    if positive != [True, True, True] or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"Expected `shares` as three numbers above 0 that make 1, got {shares!r}.")


def load_texts(
    source: str,
    root: str | Path | None = None,
    cache_dir: str | Path | None = None,
    shares: Sequence[float] | None = None,
) -> Texts:
    """The texts of `source`.

    Args:
        source: "pydoc", "ptb", "wikitext-2" or "folder".
        root: folder that holds the files. "folder" needs one, or one file; "ptb" and "wikitext-2" are downloaded
            without one; "pydoc" has no files.
        cache_dir: where downloads go. None: the user's cache folder.
        shares: how one file is cut into training, validation and test text. None: `SHARES`.

    Raises:
        ValueError: if there is no such source, `root` or `shares` does not go with it, or a file is not what it
            should be.
        FileNotFoundError: if a file is missing.
        ConnectionError: if a download fails.
    """
    check_source(source, root)
    folder = Path(root).expanduser() if root is not None else None
    if shares is not None and (source != "folder" or (folder is not None and folder.is_dir())):
        where = root if source == "folder" else f"source {source!r}"
        raise ValueError(f"Expected no `shares` with {where}: they are of one file, which is cut into three texts.")
    if source == "pydoc":
        return language_reference()
    if source in PUBLISHED:
        corpus = PUBLISHED[source]
        return corpus.read(folder) if folder else corpus.download(Path(cache_dir or cache_folder()) / source)
    assert folder is not None
    return _cut(read_text(folder), shares or SHARES) if folder.is_file() else _read_folder(folder)


def _cut(text: str, shares: Sequence[float]) -> Texts:
    """One text in three, cut at ends of lines where there are some near, or else at spaces."""
    ends = []
    for share in (shares[0], shares[0] + shares[1]):
        at = max(1, round(share * len(text)))
        near = text[at - 1 : at + len(text) // _NEAR]
        found = next((place for mark in "\n " if (place := near.find(mark)) >= 0), 0)
        ends.append(at + found)
    parts = Texts(text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :])
    if not all(part.strip() for part in parts):
        raise ValueError(f"Expected a text that can be cut into three, got one of {len(text)} characters.")
    return parts


def _read_folder(root: Path) -> Texts:
    """Any folder with `train.txt`, `valid.txt` and `test.txt`, or `NAME.train.txt` and so on."""
    found = find_texts(
        root, {part: (f"{part}.txt", f"{part}.txt.gz", f"*.{part}.txt", f"*.{part}.txt.gz") for part in Texts._fields}
    )
    if missing := [f"{part}.txt or NAME.{part}.txt" for part in Texts._fields if part not in found]:
        raise FileNotFoundError(f"Expected {', '.join(missing)} in {root}, but {list_folder(root)}.")
    return Texts(**{part: read_text(path) for part, path in found.items()})
