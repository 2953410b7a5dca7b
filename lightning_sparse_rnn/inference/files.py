"""Packed modules as files, which are opened by memory map.

A file is the eight bytes ``LSRNNPK1``, the length of the header as an unsigned little-endian integer of eight bytes,
the header as JSON in UTF-8, and tensors, little-endian, each from a multiple of 64 bytes on:

    {"format": "lightning_sparse_rnn.packed", "version": 1, "bytes": SIZE OF THE FILE, "about": {...},
     "packed": [{"names": [...], "shape": [rows, columns], "masks": PLACE, "values": PLACE, "scales": PLACE}, ...],
     "tensors": {NAME: PLACE, ...}}

with PLACE = {"dtype": "float32", "shape": [...], "at": OFFSET}. ``packed`` are weights as
:class:`~.packing.Packed` has them, and ``tensors`` the rest of the module's state.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.inference.compression import replaced
from lightning_sparse_rnn.inference.layers import PackedLayer
from lightning_sparse_rnn.inference.packing import Packed
from lightning_sparse_rnn.models import NETWORKS
from lightning_sparse_rnn.utilities.whole_files import replacing

__all__ = ["load_packed", "save_packed"]

_MAGIC = b"LSRNNPK1"
_FORMAT, _VERSION = "lightning_sparse_rnn.packed", 1
_ALIGNMENT = 64
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.int16,
                  torch.int32, torch.int64, torch.bool)
}  # fmt: skip
# What a file may name: it may come from anywhere, and nothing else is called.
_NETWORKS: dict[str, Any] = {f"lightning_sparse_rnn.models.{each.__name__}": each for each in NETWORKS}


def save_packed(path: str | Path, module: nn.Module, network: Mapping[str, Any] | None = None) -> None:
    """Write a module that `compress` made; the file is whole or not there.

    Args:
        network: the ``_target_`` and all arguments of one of this package's networks, from which `load_packed` builds
            it by itself.

    Raises:
        ValueError: nothing in ``module`` is packed.
        OSError: the file cannot be written.
    """
    names: dict[int, list[str]] = {}
    weights: dict[int, Packed] = {}
    inside: set[str] = set()
    for path_, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, PackedLayer):
            prefix = f"{path_}." if path_ else ""
            inside.add(f"{prefix}packed.")
            for name, weight in layer.packed.items():
                assert isinstance(weight, Packed)
                weights[id(weight)] = weight
                names.setdefault(id(weight), []).append(prefix + name)
    if not weights:
        raise ValueError(
            "Expected a module with packed weights, got one without. `compress` packs small ones with smallest=1 alone "
            "and none where there is no kernel; of both it warns."
        )
    writer = _Writer()
    packed = [
        {
            "names": names[key],
            "shape": list(weight.shape),
            "masks": writer.place(weight.masks),
            "values": writer.place(weight.values),
            **({} if weight.scales is None else {"scales": writer.place(weight.scales)}),
        }
        for key, weight in weights.items()
    ]
    rest = {name: tensor for name, tensor in module.state_dict().items() if not any(map(name.startswith, inside))}
    tensors = {name: writer.place(tensor) for name, tensor in rest.items()}
    about = {} if network is None else {"network": dict(network)}
    header = {"format": _FORMAT, "version": _VERSION, "about": about, "packed": packed, "tensors": tensors}
    with replacing(Path(path)) as file:
        writer.write(file, header)


def load_packed(path: str | Path, module: nn.Module | None = None) -> nn.Module:
    """Open a file that `save_packed` or ``sparse-rnn-export --format packed`` wrote: a module ready to run.

    The file is mapped to memory: what is not used is not read, and processes share it. It must not be changed while it
    is in use. Where there is no kernel for packed weights, the module is dense.

    Args:
        module: one of the kind that was compressed, whose weights do not matter; not needed for the networks of this
            package if the file names its network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, damaged, of another kind or version, or of another module.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of packed weights {path}.")
    reader = _Reader(path)
    header = reader.header
    if module is None:
        module = _build(header["about"].get("network"), path)
    try:
        packed: dict[str, Packed] = {}
        for entry in header["packed"]:
            packed.update(dict.fromkeys(entry["names"], reader.packed(entry)))
        rest = {name: reader.tensor(place) for name, place in header["tensors"].items()}
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The packed weights in {path} are damaged: {error}") from error
    _check_fits(module, packed, rest, path)
    return _filled(module, packed, rest)


def _filled(module: nn.Module, packed: Mapping[str, Packed], rest: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``module`` with the file's weights, packed or, where there is no kernel, dense."""
    result = replaced(module, packed)
    found = dict(rest)
    if not any(isinstance(part, PackedLayer) for part in result.modules()):
        dense = {id(weight): nn.Parameter(weight.dense(), requires_grad=False) for weight in packed.values()}
        found.update({name: dense[id(weight)] for name, weight in packed.items()})
    for name, tensor in found.items():
        parent, _, last = name.rpartition(".")
        owner = result.get_submodule(parent)
        if last in owner._parameters:
            owner._parameters[last] = nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[last] = tensor
    return result


def _build(network: Any, path: Path) -> nn.Module:
    """The network that a file names, without memory for its weights."""
    if network is None:
        raise ValueError(f"Expected a file that names its network, got {path}. Give `load_packed` the module as well.")
    options = dict(network)
    named = str(options.pop("_target_", ""))
    if named not in _NETWORKS:
        raise ValueError(
            f"Expected one of {', '.join(_NETWORKS)}, got {named!r} in {path}. Build it yourself, and give it to "
            "`load_packed` as the module."
        )
    try:
        with torch.device("meta"):
            built = _NETWORKS[named](**options)
    except TypeError as error:
        raise ValueError(f"The network that {path} names cannot be built: {error}") from error
    assert isinstance(built, nn.Module)
    return built


def _check_fits(module: nn.Module, packed: Mapping[str, Packed], rest: Mapping[str, Tensor], path: Path) -> None:
    theirs: dict[str, tuple[int, ...]] = {name: tuple(weight.shape) for name, weight in packed.items()}
    theirs.update({name: tuple(tensor.shape) for name, tensor in rest.items()})
    ours = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wrong = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"Expected the packed weights of {type(module).__name__}, got those of another module in {path}: {name} is "
            f"{theirs.get(name, 'missing')} in the file and {ours.get(name, 'missing')} in the module"
            + (f", and {len(wrong) - 1} more differ." if len(wrong) > 1 else ".")
        )


class _Writer:
    """Collects tensors, and says where in the file each will stand, counted from the header's end."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._end = 0

    def place(self, tensor: Tensor) -> dict[str, Any]:
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise ValueError(f"Expected tensors of {', '.join(_DTYPES)}, got {dtype}.")
        at = self._end
        self._tensors.append(tensor)
        self._end += tensor.nbytes + -tensor.nbytes % _ALIGNMENT
        return {"dtype": dtype, "shape": list(tensor.shape), "at": at}

    def write(self, file: BinaryIO, header: dict[str, Any]) -> None:
        text = json.dumps({**header, "bytes": self._end}).encode()
        text += b" " * (-(len(_MAGIC) + 8 + len(text)) % _ALIGNMENT)
        file.write(_MAGIC + len(text).to_bytes(8, "little") + text)
        for tensor in self._tensors:
            flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            file.write(flat.tobytes() + bytes(-len(flat) % _ALIGNMENT))


class _Reader:
    """A file mapped to memory, and its header."""

    def __init__(self, path: Path) -> None:
        if sys.byteorder != "little":
            raise ValueError(f"Expected a little-endian machine to map {path}, got a big-endian one.")
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + 8)
            if not start.startswith(_MAGIC[:-1]):
                raise ValueError(f"Expected a file that `save_packed` wrote, got {path}, which is of another kind.")
            if not start.startswith(_MAGIC):
                raise ValueError(_other_version(path, start[len(_MAGIC) - 1 : len(_MAGIC)].decode(errors="replace")))
            text = file.read(int.from_bytes(start[len(_MAGIC) :], "little"))
            self._begin = file.tell()
            size = path.stat().st_size
            try:
                self.header = json.loads(text)
                whole = self._begin + self.header["bytes"]
                if self.header["format"] != _FORMAT or not isinstance(self.header["about"], dict):
                    raise ValueError("its header is of another kind")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} ({size:,} bytes) is cut short or damaged: {error}") from error
            if self.header["version"] != _VERSION:
                raise ValueError(_other_version(path, self.header["version"]))
            if size != whole:
                raise ValueError(f"{path} is cut short or damaged: it has {size:,} bytes, and {whole:,} were written.")
            # Copied where it is written to, so that torch may treat it as memory of its own.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def tensor(self, place: Mapping[str, Any]) -> Tensor:
        shape, dtype, at = place["shape"], _DTYPES[place["dtype"]], place["at"]
        count = math.prod(shape)
        if at < 0 or at + count * dtype.itemsize > self.header["bytes"]:
            raise ValueError(f"a tensor ends at {at + count * dtype.itemsize} of {self.header['bytes']} bytes")
        if not count:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=self._begin + at).view(shape)

    def packed(self, entry: Mapping[str, Any]) -> Packed:
        scales = self.tensor(entry["scales"]) if "scales" in entry else None
        rows, columns = entry["shape"]
        return Packed((rows, columns), self.tensor(entry["masks"]), self.tensor(entry["values"]), scales)


def _other_version(path: Path, version: object) -> str:
    return (
        f"Expected packed weights of version {_VERSION}, got version {version} in {path}. Another release of "
        "lightning_sparse_rnn wrote it: export it again with this one."
    )
