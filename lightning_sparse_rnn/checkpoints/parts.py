"""Packed checkpoints in parts of limited size.

The tensors of a packed checkpoint, but for small ones, are one row of bytes, in the order in which they stand there. It
is cut into parts of one size, of which the last may have fewer bytes. What is left is the checkpoint's *entry*: the
packed checkpoint with ``{"lightning_sparse_rnn.row": ["int32", first byte, number of bytes]}`` for each such tensor, as
version 2, with one item more:

    {"version": 2, "tensors": [...], "parts": {"token": "0123456789abcdef", "sizes": [bytes of each part, ...]}}

A part is ``{"token": "0123456789abcdef", "index": 0, "bytes": tensor}``. Every entry has a token of its own, so that no
part is taken for another's.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.checkpoints.nested import mapped
from lightning_sparse_rnn.checkpoints.packing import KEY

__all__ = ["LEAST_LIMIT", "TOKEN", "Part", "join", "parts_of", "split"]

#: What no file can be limited below, in bytes.
LEAST_LIMIT = 8192
#: What tokens look like.
TOKEN = r"[0-9a-f]{16}"
_ROW = "lightning_sparse_rnn.row"
_VERSION = 2
# Smaller tensors stay in the entry.
_SMALLEST = 1024
# What a file of torch has beside the bytes of tensors: at most so many for a part, and for each tensor of a whole one.
_AROUND_A_PART, _AROUND_A_TENSOR = 4096, 512
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)}


@dataclass(frozen=True)
class Part:
    """One part of a checkpoint.

    Attributes:
        token: that of its checkpoint.
        index: which part it is, from 0.
        pieces: its bytes, as views of the checkpoint's tensors.
    """

    token: str
    index: int
    pieces: list[Tensor]

    def content(self) -> dict[str, Any]:
        """What its file holds."""
        return {"token": self.token, "index": self.index, "bytes": torch.cat(self.pieces)}


def split(packed: dict[str, Any], limit: int) -> tuple[dict[str, Any], list[Part]]:
    """Cut a packed checkpoint so that each file has at most ``limit`` bytes.

    Returns:
        What the checkpoint's own file is to hold, and its parts: none, and the checkpoint as it is, if it fits or has
        only small tensors.
    """
    row = _Row()
    left = mapped(packed[KEY]["tensors"], row)
    if not row.tensors or row.bytes + _around(row, {**packed, KEY: left}) <= limit:
        return packed, []
    token = secrets.token_hex(8)
    parts = [Part(token, index, pieces) for index, pieces in enumerate(_cut(row.tensors, limit - _AROUND_A_PART))]
    sizes = [sum(map(len, part.pieces)) for part in parts]
    return {**packed, KEY: {"version": _VERSION, "tensors": left, "parts": {"token": token, "sizes": sizes}}}, parts


def parts_of(checkpoint: dict[str, Any]) -> tuple[str, list[int]] | None:
    """Return the token of a checkpoint's entry and the sizes of its parts in bytes; ``None`` if it has no parts.

    Raises:
        ValueError: it is damaged.
    """
    packed = checkpoint.get(KEY)
    if not isinstance(packed, dict) or packed.get("version") != _VERSION:
        return None
    try:
        token, sizes = packed["parts"]["token"], packed["parts"]["sizes"]
        if not re.fullmatch(TOKEN, token) or not all(type(size) is int for size in sizes):
            raise ValueError("there is no telling its parts")
        return token, list(sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise _of_no_sense(error) from error


def join(entry: dict[str, Any], parts: Sequence[Tensor]) -> dict[str, Any]:
    """Return the packed checkpoint whose entry and bytes of parts are given.

    Raises:
        ValueError: it is damaged.
    """
    found: dict[tuple[Any, ...], Tensor] = {}
    room = sum(map(len, parts))

    def put_back(value: Any) -> Tensor | None:
        nonlocal room
        if not isinstance(value, dict) or value.keys() != {_ROW}:
            return None
        dtype, begin, count = place = tuple(value[_ROW])
        if place not in found:
            room -= count
            if begin < 0 or count < 0 or room < 0:
                raise ValueError(f"it claims to have {count} bytes from {begin} on")
            found[place] = torch.cat(_taken(parts, begin, begin + count)).view(_DTYPES[dtype])
            if found[place].nbytes != count:
                raise ValueError(f"there are {found[place].nbytes} bytes of {count} from {begin} on")
        return found[place]

    try:
        return {**entry, KEY: {"version": 1, "tensors": mapped(entry[KEY]["tensors"], put_back)}}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _of_no_sense(error) from error


class _Row:
    """Puts in the place of each tensor where its bytes stand in one row; tensors with one memory get one place."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.bytes = 0
        self._places: dict[tuple[Any, ...], list[Any]] = {}

    def __call__(self, value: Any) -> dict[str, list[Any]] | None:
        if not isinstance(value, Tensor) or value.nbytes < _SMALLEST:
            return None
        key = (value.data_ptr(), value.dtype, value.numel())
        if key not in self._places:
            self._places[key] = [str(value.dtype).removeprefix("torch."), self.bytes, value.nbytes]
            self.tensors.append(value.view(torch.uint8))
            self.bytes += value.nbytes
        return {_ROW: self._places[key]}


def _cut(tensors: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    parts: list[list[Tensor]] = []
    room = 0
    for rest in tensors:
        while len(rest):
            if not room:
                parts.append([])
                room = size
            parts[-1].append(rest[:room])
            rest = rest[room:]
            room -= len(parts[-1][-1])
    return parts


def _taken(parts: Sequence[Tensor], begin: int, end: int) -> list[Tensor]:
    pieces = []
    for part in parts:
        pieces.append(part[max(begin, 0) : max(end, 0)])
        begin, end = begin - len(part), end - len(part)
    return pieces


def _around(row: _Row, left: Any) -> int:
    """How many bytes a file of the whole checkpoint has at most beside the row's."""
    file = io.BytesIO()
    torch.save(left, file)
    return file.tell() + _AROUND_A_TENSOR * len(row.tensors)


def _of_no_sense(error: Exception) -> ValueError:
    return ValueError(f"The packed checkpoint cannot be put together: {error}.")
