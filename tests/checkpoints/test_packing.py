"""Compact checkpoints: smaller, and the same bit for bit."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints_of_every_kind import checkpoint, same, sparse
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_sparse_rnn.checkpoints.packing import KEY, pack, unpack
from lightning_sparse_rnn.checkpoints.reading import find_last_good, load_checkpoint, peek
from lightning_sparse_rnn.checkpoints.writing import BackgroundCheckpointIO, WholeFileCheckpointIO

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32]
DTYPES += [torch.int64, torch.uint8, torch.bool]


def size(checkpoint: dict[str, Any], folder: Path) -> int:
    torch.save(checkpoint, folder / "size")
    return (folder / "size").stat().st_size


def test_what_comes_back_is_what_was_packed(tmp_path: Path) -> None:
    before = checkpoint()
    kept = copy.deepcopy(before)
    packed = pack(before)
    same(before, kept)
    torch.save(packed, tmp_path / "packed")
    after = unpack(torch.load(tmp_path / "packed", weights_only=True))
    same(after, before)
    assert after["state_dict"]._metadata == before["state_dict"]._metadata
    assert after["state_dict"]["weight"] is after["state_dict"]["decoder.weight"]
    # Weights and means; one bit per position for both and for all forms of the mask, and one for each zero's sign.
    live = int(before["masks"]["bool"].sum())
    places = before["masks"]["bool"].numel()
    names_and_small = size({"state_dict": {}, "carried": before["carried"], "bias": torch.randn(150)}, tmp_path) + 6000
    assert size(packed, tmp_path) < 2 * 4 * live + places / 8 + 2 * places / 8 + places + names_and_small
    assert size(packed, tmp_path) < size(before, tmp_path) / 3
    assert packed["global_step"] == 1500


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    density=st.sampled_from([0.0, 0.01, 0.3, 0.97, 1.0]),
    shape=st.lists(st.integers(1, 40), min_size=0, max_size=3),
    seed=st.integers(0, 99),
    transposed=st.booleans(),
)
def test_every_dtype_and_shape(
    dtype: torch.dtype, density: float, shape: list[int], seed: int, transposed: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**62), 2**62, [*shape, 8], generator=generator)  # NaNs of all kinds, infinities, subnormals
    values = bits.view(torch.uint8).flatten()[: bits[..., 0].numel() * dtype.itemsize]
    values = values.remainder(2) if dtype == torch.bool else values
    tensor = values.clone().view(dtype).view(shape)
    where = torch.rand(shape, generator=generator) < density
    tensor = torch.where(where, tensor, torch.zeros((), dtype=dtype))
    if dtype.is_floating_point:
        tensor = torch.where(torch.rand(shape, generator=generator) < 0.2, -torch.zeros((), dtype=dtype), tensor)
    tensor = tensor.t() if transposed and tensor.dim() == 2 else tensor
    before = {"one": tensor, "other": nn.Parameter(tensor) if dtype.is_floating_point else tensor}
    after = unpack(pack(before))
    same({"one": after["one"]}, {"one": tensor})


def test_parts_of_a_larger_tensor_are_written_as_parts(tmp_path: Path) -> None:
    large = torch.randn(1000, 1000)
    before = {"rows": large[10:20], "columns": large[:, 3]}
    same(unpack(pack(before)), before)
    assert size(pack(before), tmp_path) < 60_000


def test_dense_weights_get_smaller_by_their_exponents(tmp_path: Path) -> None:
    before = {"weight": torch.randn(300, 300)}
    assert size(pack(before), tmp_path) < 0.9 * size(before, tmp_path)


def test_one_that_is_not_packed_stays_as_it_is() -> None:
    before = checkpoint()
    assert unpack(before) is before
    zeros = {"weight": torch.zeros(4096, 4096), "state_dict": {}}
    for _ in range(40):
        zeros[f"again {len(zeros)}"] = torch.zeros(256, 256)
    same(unpack(pack(zeros)), zeros)


@pytest.mark.parametrize("io", [WholeFileCheckpointIO, BackgroundCheckpointIO])
def test_files(tmp_path: Path, io: type[WholeFileCheckpointIO]) -> None:
    writer = io(compact=True)
    before, after = checkpoint(1), checkpoint(2)
    for number, each in enumerate((before, after)):
        writer.save_checkpoint({**each, "global_step": number}, tmp_path / f"{number}.ckpt")
        each["raw"]["weight"].zero_()  # training goes on at once
    writer.teardown()
    same(io().load_checkpoint(tmp_path / "0.ckpt"), {**checkpoint(1), "global_step": 0})
    same(load_checkpoint(tmp_path / "1.ckpt"), {**checkpoint(2), "global_step": 1})
    assert find_last_good(tmp_path) == tmp_path / "1.ckpt"
    assert peek(tmp_path / "1.ckpt")["global_step"] == 1
    torch.load(tmp_path / "1.ckpt", weights_only=True)
    content = bytearray((tmp_path / "1.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "1.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(tmp_path / "1.ckpt")
    with pytest.warns(UserWarning, match="Passing over"):
        assert find_last_good(tmp_path) == tmp_path / "0.ckpt"


def _first(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return next(entry for entry in entries if "where" in entry)


DAMAGES: dict[str, Any] = {
    "version": lambda packed: packed.update(version=2),
    "no tensors": lambda packed: packed.pop("tensors"),
    "fewer tensors": lambda packed: packed["tensors"].clear(),
    "a large shape": lambda packed: _first(packed["tensors"]).update(shape=[10**6, 10**6]),
    "a negative shape": lambda packed: _first(packed["tensors"]).update(shape=[-200, 150]),
    "another shape": lambda packed: _first(packed["tensors"]).update(shape=[200, 151]),
    "another dtype": lambda packed: _first(packed["tensors"]).update(dtype="float64"),
    "no dtype": lambda packed: _first(packed["tensors"]).update(dtype="__class__"),
    "text for values": lambda packed: _first(packed["tensors"]).update(values="text"),
    "values of another length": lambda packed: _first(packed["tensors"]).update(values=torch.zeros(3)),
    "a pattern that is none": lambda packed: _first(packed["tensors"]).update(where=10**6),
    "a pattern of another length": lambda packed: packed["tensors"].append(
        packed["tensors"][_first(packed["tensors"])["where"]].update(dense=torch.zeros(2, dtype=torch.uint8))
    ),
    "signs of another length": lambda packed: _first(packed["tensors"]).update(negative=torch.zeros(2)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_makes_no_sense_is_refused(tmp_path: Path, damage: str) -> None:
    packed = pack(checkpoint())
    DAMAGES[damage](packed[KEY])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(packed)
    torch.save(packed, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"bad\.ckpt .*is cut short or damaged"):
        load_checkpoint(tmp_path / "bad.ckpt")


def test_what_would_grow_beyond_measure_is_refused(tmp_path: Path) -> None:
    packed = pack({"state_dict": {"weight": sparse(100, 100)[0]}, "global_step": 1})
    tensors = packed[KEY]["tensors"]
    tensors += [dict(_first(tensors)) for _ in range(3000)]  # of one pattern and its values
    with pytest.raises(ValueError, match="claims to unpack to"):
        unpack(packed)
    torch.save({"state_dict": {"weight": torch.zeros(10**6)}, "global_step": 1}, tmp_path / "stored.ckpt")
    bomb = zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "stored.ckpt") as stored, bomb:
        for name in stored.namelist():
            bomb.writestr(name, stored.read(name))
    with pytest.raises(ValueError, match="it is compressed, which torch does not do"):
        load_checkpoint(tmp_path / "bomb.ckpt")
