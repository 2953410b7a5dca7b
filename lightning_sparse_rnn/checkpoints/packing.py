"""Checkpoints of sparse runs made small: live values, one bit per position, and bytes that repeat compressed.

Every tensor comes back bit for bit. A packed checkpoint is the checkpoint itself with each large tensor replaced by
``{"lightning_sparse_rnn.packed": index}``, and one entry more, of the same name, that has the tensors:

    {"version": 1, "tensors": [{"dense": tensor} or {"shape": [...], "dtype": "float32", "where": index,
                                "values": tensor or [bytes, ...], "of": tensor, "negative": bits}, ...]}

``where`` is the index of a tensor with one bit per position, packed as ``numpy.packbits`` does it, and ``values`` what
stands where bits are set; elsewhere stand zeros. Without ``where``, values stand everywhere. As a list, ``values`` has
first bytes of all values, then second bytes, and so on, each a tensor, or ``{"zlib": tensor}``. Of whole numbers of
which few differ, ``of`` has these, and the values say which it is: one byte each. Masking makes of a negative weight
-0.0: ``negative`` has one bit per zero, set for these, or is not there if there are none.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse_rnn.checkpoints.nested import mapped

__all__ = ["KEY", "pack", "unpack"]

#: The entry of a packed checkpoint that has its tensors, and what stands in the place of each.
KEY = "lightning_sparse_rnn.packed"
_VERSION = 1
_INTEGERS = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (*_FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
}
# Smaller tensors are left as they are.
_SMALLEST = 1024
# What is compressed is to lose this share at least, judged by its first bytes.
_WORTH_IT, _JUDGED_BY = 0.9, 65_536
# Whole numbers this close together are counted, to see whether few differ: births are steps of one run.
_WIDEST = 2**24
# A file that claims to unpack to more than this many times its size is refused: nothing real comes near.
_LARGEST_GAIN = 256


def pack(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint with its tensors packed; the one given stays as it is.

    Tensors that share their memory wholly are written once, as torch does it, and so are equal patterns of zeros. A
    pattern that is in the checkpoint, as the masks of a topology are, serves for all tensors whose zeros it has.
    """
    found = _Collector()
    packed: dict[str, Any] = mapped(checkpoint, found)
    entries: list[dict[str, Any]] = [{} for _ in found.tensors]
    patterns: dict[int, list[int]] = {}  # by their number of bytes, indices of tensors of bits
    for index, tensor in enumerate(found.tensors):
        if tensor.dtype == torch.uint8 and tensor.dim() == 1:
            entries[index] = {"dense": tensor.detach().cpu().clone()}
            patterns.setdefault(len(tensor), []).append(index)
    for index, tensor in enumerate(found.tensors):
        if not entries[index]:
            entries[index] = _entry(tensor, entries, patterns)
    if sum(tensor.nbytes for tensor in found.tensors) > _LARGEST_GAIN * _bytes(entries):
        entries = [_as_it_is(tensor) for tensor in found.tensors]
    return {**packed, KEY: {"version": _VERSION, "tensors": entries}}


def unpack(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint that :func:`pack` packed, or the same one if it is not packed.

    Raises:
        ValueError: it is damaged, or of a newer version.
    """
    if KEY not in checkpoint:
        return checkpoint
    packed = checkpoint[KEY]
    try:
        if packed["version"] != _VERSION:
            raise ValueError(f"it is of version {packed['version']}, which a newer lightning_sparse_rnn has written")
        entries = packed["tensors"]
        sizes = [math.prod(e["shape"]) * _DTYPES[e["dtype"]].itemsize for e in entries if "dense" not in e]
        if min(sizes, default=0) < 0 or sum(sizes) > _LARGEST_GAIN * _bytes(entries):
            raise ValueError(f"it claims to unpack to {sum(sizes):,} bytes")
        tensors = [_tensor(entry, entries) for entry in entries]

        def put_back(value: Any) -> Any:
            return tensors[value[KEY]] if isinstance(value, dict) and value.keys() == {KEY} else None

        rest = {name: value for name, value in checkpoint.items() if name != KEY}
        unpacked: dict[str, Any] = mapped(rest, put_back)
        return unpacked
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError, zlib.error) as error:
        raise ValueError(f"The packed checkpoint cannot be unpacked: {error}.") from error


class _Collector:
    """Puts an index in the place of each tensor that can be packed; tensors with one memory get one index."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._indices: dict[tuple[Any, ...], int] = {}

    def __call__(self, value: Any) -> dict[str, int] | None:
        plain = (
            type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided and value.dtype in _DTYPES.values()
        )
        if not plain or value.nbytes < _SMALLEST:
            return None
        key = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if key not in self._indices:
            self._indices[key] = len(self.tensors)
            self.tensors.append(value)
        return {KEY: self._indices[key]}


def _entry(tensor: Tensor, entries: list[dict[str, Any]], patterns: dict[int, list[int]]) -> dict[str, Any]:
    """Pack one tensor; a pattern of zeros that is new goes to the end of ``entries``."""
    flat, kind = _flat(tensor), _kind(tensor)
    signed = tensor.dtype in _FLOATS
    bits = np.packbits((flat << 1 if signed else flat) != 0)  # but for the sign
    count = _count(bits)
    saved = (flat.size - count) * flat.itemsize - bits.nbytes
    where, best = None, saved
    for index in patterns.get(bits.size, ()):
        known = entries[index]["dense"].numpy()
        if not np.any(bits & ~known):  # it has all that is not zero here
            gain = (flat.size - min(_count(known), flat.size)) * flat.itemsize
            if gain > best:
                where, best = index, gain
    if best <= 0:
        return {**kind, **_coded(flat, not signed)}
    if where is None:
        where = len(entries)
        entries.append({"dense": torch.from_numpy(bits)})
        patterns.setdefault(bits.size, []).append(where)
    live = np.unpackbits(entries[where]["dense"].numpy(), count=flat.size).view(bool)
    entry = {**kind, "where": where, **_coded(flat[live], not signed)}
    if signed:
        negative = flat[~live] < 0
        if negative.any():
            entry["negative"] = torch.from_numpy(np.packbits(negative))
    return entry


def _as_it_is(tensor: Tensor) -> dict[str, Any]:
    return {**_kind(tensor), "values": torch.from_numpy(_flat(tensor).copy())}


def _flat(tensor: Tensor) -> np.ndarray:
    """A tensor's bits in row order, as whole numbers."""
    dense = tensor.detach().cpu().contiguous()
    return dense.flatten().view(torch.uint8).numpy().view(_INTEGERS[dense.element_size()])


def _kind(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _tensor(entry: Mapping[str, Any], entries: list[dict[str, Any]]) -> Tensor:
    if "dense" in entry:
        dense: Tensor = entry["dense"]
        return dense
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    integers, size = _INTEGERS[dtype.itemsize], math.prod(shape)
    if "where" in entry:
        live = _bits(entries[entry["where"]]["dense"], size)
        flat = np.zeros(size, dtype=integers)
        flat[live] = _decoded(entry, np.dtype(integers), int(np.count_nonzero(live)))
        if "negative" in entry:
            zeros = np.flatnonzero(~live)
            flat[zeros[_bits(entry["negative"], len(zeros))]] = -1 << (8 * dtype.itemsize - 1)  # the sign alone
    else:
        flat = _decoded(entry, np.dtype(integers), size)
    return torch.from_numpy(flat.view(np.uint8)).view(dtype).view(shape)


def _coded(values: np.ndarray, whole: bool) -> dict[str, Any]:
    """Values as they are, or by bytes of which some are compressed; whole numbers also as numbers of a short list."""
    if whole and values.itemsize >= 4 and (few := _few(values)) is not None:
        which = np.searchsorted(few, values).astype(np.uint8)
        return {"of": torch.from_numpy(few), "values": [_compressed(which)]}
    planes = [np.ascontiguousarray(plane) for plane in values.view(np.uint8).reshape(-1, values.itemsize).T]
    coded = [_compressed(plane) for plane in planes]
    if not any(isinstance(plane, dict) for plane in coded):
        return {"values": torch.from_numpy(values.copy() if values.dtype != np.uint8 else values)}
    return {"values": coded}


def _few(values: np.ndarray) -> np.ndarray | None:
    """The different values, ascending, if one byte can tell them apart and they are close enough to look for."""
    if not values.size:
        return None
    least, most = int(values.min()), int(values.max())
    if most - least > _WIDEST:
        return None
    there = np.zeros(most - least + 1, dtype=bool)
    there[values - least] = True
    found = np.flatnonzero(there)
    return (found + least).astype(values.dtype) if len(found) <= 256 else None


def _compressed(plane: np.ndarray) -> Tensor | dict[str, Tensor]:
    if plane.size and len(_deflate(plane[:_JUDGED_BY])) < _WORTH_IT * min(plane.size, _JUDGED_BY):
        return {"zlib": torch.frombuffer(bytearray(_deflate(plane)), dtype=torch.uint8)}
    return torch.from_numpy(plane)


def _deflate(plane: np.ndarray) -> bytes:
    # Bytes of numbers have no phrases to look for, but frequencies and runs.
    compressor = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return compressor.compress(plane.tobytes()) + compressor.flush()


def _decoded(entry: Mapping[str, Any], dtype: np.dtype, count: int) -> np.ndarray:
    if "of" in entry:
        few: np.ndarray = entry["of"].numpy()
        if few.dtype != dtype:
            raise ValueError(f"there are values of {few.dtype} for {dtype}")
        return few[_decoded({"values": entry["values"]}, np.dtype(np.uint8), count)]
    values = entry["values"]
    if isinstance(values, Tensor):
        flat: np.ndarray = values.numpy()
        if flat.dtype != dtype or flat.shape != (count,):
            raise ValueError(f"there are values of {flat.dtype} {flat.shape} for {count} places of {dtype}")
        return flat
    planes = np.empty((count, dtype.itemsize), dtype=np.uint8)
    if len(values) != dtype.itemsize:
        raise ValueError(f"there are {len(values)} bytes of each value of {dtype}")
    for index, plane in enumerate(values):
        if isinstance(plane, dict):
            decompressor = zlib.decompressobj()
            # One byte more than is expected shows that there are too many.
            plane = torch.frombuffer(
                bytearray(decompressor.decompress(plane["zlib"].numpy().tobytes(), count + 1)), dtype=torch.uint8
            )
        if plane.shape != (count,):
            raise ValueError(f"there are {len(plane)} bytes for {count} places")
        planes[:, index] = plane.numpy()
    return planes.view(dtype).reshape(count)


def _bits(packed: Tensor, count: int) -> np.ndarray:
    if packed.dtype != torch.uint8 or packed.shape != (math.ceil(count / 8),):
        raise ValueError(f"there are {packed.numel()} bytes of bits for {count} positions")
    return np.unpackbits(packed.numpy(), count=count).view(bool)


def _count(bits: np.ndarray) -> int:
    """How many bits are set."""
    return int(np.unpackbits(bits).sum(dtype=np.int64))


def _bytes(entries: list[dict[str, Any]]) -> int:
    """How many bytes of memory all tensors in the entries have; a tensor that stands in several counts once."""
    sizes: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, Tensor):
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()

    mapped(entries, look)
    return sum(sizes.values())
