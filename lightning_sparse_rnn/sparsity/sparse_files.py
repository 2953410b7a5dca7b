"""Sparse weights as files: the live values, and one bit per position that says where they are."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits, unpack_bits
from lightning_sparse_rnn.sparsity.numerics.compaction import INTEGERS, compact, count_true, expand
from lightning_sparse_rnn.utilities.whole_files import replacing

__all__ = ["load_sparse", "save_sparse"]

_FORMAT = "lightning_sparse_rnn.sparse_weights"
_VERSION = 1
# Bits are kept, not numbers: a NaN stays the NaN it was.
_SIGNED_ZEROS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_sparse(path: str | Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write tensors by name so that each zero takes one bit; the file is whole or not there.

    Every tensor comes back bit for bit, whatever its dtype, but for the -0.0 that masking makes of a negative weight:
    it comes back as 0.0. A tensor that would not get smaller is written as it is. Names of one tensor, as tied weights
    have, are written once. ``torch.load(path, weights_only=True)`` reads the file:

        {"format": "lightning_sparse_rnn.sparse_weights", "version": 1,
         "tensors": [{"names": [...], "dense": tensor} or
                     {"names": [...], "shape": [...], "live": bits, "values": tensor}, ...]}

    ``live`` has one bit per position, packed into bytes as ``numpy.packbits`` does it, and ``values`` those at set
    bits.

    >>> save_sparse("weights.pt", {"weight": torch.eye(3)})
    >>> load_sparse("weights.pt")["weight"].equal(torch.eye(3))
    True

    Raises:
        TypeError: ``state_dict`` is no mapping, or a value is no tensor, or one that is not strided, such as a
            sparse or quantised one.
        OSError: the file cannot be written.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"Expected tensors by name, as `module.state_dict()` gives them, got {type(state_dict).__name__}."
        )
    entries: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, tensor in state_dict.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            kind = f"a tensor of layout {tensor.layout}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"Expected plain tensors by name, got {kind} under {name!r}.")
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if key in entries and tensor.numel():
            entries[key]["names"].append(name)
        else:
            entries[(*key, name) if not tensor.numel() else key] = {"names": [name], **_entry(tensor)}
    with replacing(Path(path)) as file:
        torch.save({"format": _FORMAT, "version": _VERSION, "tensors": list(entries.values())}, file)


def load_sparse(path: str | Path) -> dict[str, Tensor]:
    """Read what :func:`save_sparse` wrote: dense tensors by name, on the CPU; names of one tensor share it.

    >>> save_sparse("weights.pt", {"encoder": torch.eye(3), "bias": torch.zeros(3)})
    >>> list(load_sparse("weights.pt"))
    ['encoder', 'bias']

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short or damaged, or is of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of sparse weights {path}.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums it writes
            if record := archive.testzip():
                raise ValueError(f"{record} is not what was written")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ...
        raise ValueError(f"{path} is no file of sparse weights, or is cut short or damaged: {error}") from error
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        held = ", ".join(sorted(map(str, saved))[:8]) if isinstance(saved, dict) else f"a {type(saved).__name__}"
        raise ValueError(f"Expected a file that `save_sparse` wrote, got {path}, which holds {held}.")
    if saved.get("version") != _VERSION:
        raise ValueError(
            f"Expected sparse weights of version {_VERSION}, got version {saved.get('version')} in {path}. A newer "
            "lightning_sparse_rnn may have written it."
        )
    try:
        return {name: tensor for entry in saved["tensors"] for tensor in [_tensor(entry)] for name in entry["names"]}
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The sparse weights in {path} are damaged: {error}") from error


def _entry(tensor: Tensor) -> dict[str, Any]:
    """The tensor as it is, or its live values and where they are, whichever is smaller."""
    # A copy: of a part of a larger tensor torch would write all of that.
    dense = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    bits = INTEGERS.get(dense.element_size())
    if bits is None or dense.is_complex():
        return {"dense": dense}
    flat = dense.flatten()
    integers = flat.view(bits)
    live = (integers & torch.iinfo(bits).max if dense.dtype in _SIGNED_ZEROS else integers) != 0
    entry = {
        "shape": list(tensor.shape),
        "live": pack_bits(live),
        "values": compact(integers, live).view(flat.dtype),
    }
    size = sum(part.nbytes for part in entry.values() if isinstance(part, Tensor))
    return entry if size < flat.nbytes else {"dense": dense}


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    if not all(isinstance(name, str) for name in entry["names"]):
        raise ValueError("names are no text")
    if "dense" in entry:
        return _expect_tensor(entry["dense"])
    values = _expect_tensor(entry["values"])
    live = unpack_bits(entry["live"], math.prod(entry["shape"]))
    if values.shape != (count_true(live),):
        raise ValueError(f"{entry['names']} have {values.numel()} values for {count_true(live)} live positions")
    bits = INTEGERS[values.element_size()]
    integers = expand(values.view(bits), live)
    if "negative" in entry:  # as older files have it: one bit per zero, set for -0.0
        zeros = ~live
        integers.masked_fill_(expand(unpack_bits(entry["negative"], count_true(zeros)), zeros), torch.iinfo(bits).min)
    return integers.view(values.dtype).view(entry["shape"])


def _expect_tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor, got {type(value).__name__}")
    return value
