"""Packed checkpoints cut into parts and put together again."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints_of_every_kind import checkpoint, same
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_sparse_rnn.checkpoints.nested import mapped
from lightning_sparse_rnn.checkpoints.packing import KEY, pack, unpack
from lightning_sparse_rnn.checkpoints.parts import LEAST_LIMIT, Part, join, parts_of, split

ROW = "lightning_sparse_rnn.row"


def contents(parts: list[Part]) -> list[Tensor]:
    return [part.content()["bytes"] for part in parts]


def saved(value: Any, path: Path) -> int:
    """Bytes of a file of torch."""
    torch.save(value, path)
    return path.stat().st_size


@given(
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=12),
    limit=st.integers(LEAST_LIMIT, 40_000),
    zeros=st.sampled_from([0.0, 0.6]),
)
def test_what_is_put_together_is_what_was_cut(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int, zeros: float
) -> None:
    generator = torch.Generator().manual_seed(len(sizes))
    tensors = [torch.randn(size, generator=generator) for size in sizes]
    before: dict[str, Any] = {f"{i}": tensor * (tensor.abs() >= zeros) for i, tensor in enumerate(tensors)}
    before["other name"] = before["0"]
    packed = pack(before)
    entry, parts = split(packed, limit)
    folder = tmp_path_factory.mktemp("files")
    if not parts:
        assert entry is packed
        found: list[int] = []
        mapped(packed, lambda value: found.append(value.nbytes) if isinstance(value, Tensor) else None)
        assert saved(entry, folder / "whole") <= limit or max(found) < 1024
        return
    assert all(saved(part.content(), folder / "part") <= limit for part in parts)
    token, lengths = parts_of(entry) or ("", [])
    assert [(part.token, part.index) for part in parts] == [(token, index) for index in range(len(lengths))]
    assert lengths == [len(content) for content in contents(parts)]
    assert len(parts) == math.ceil(sum(lengths) / (limit - 4096))  # no file more than it takes
    torch.save(entry, folder / "entry")
    after = unpack(join(torch.load(folder / "entry", weights_only=True), contents(parts)))
    same(after, before)
    assert after["other name"] is after["0"]


def test_what_fits_is_one_file(tmp_path: Path) -> None:
    packed = pack(checkpoint())
    size = saved(packed, tmp_path / "whole")
    assert split(packed, size - 1)[1]
    entry, parts = split(packed, size + 10_000)
    assert entry is packed
    assert not parts


def test_a_row_by_hand() -> None:
    first, second = torch.arange(2000, dtype=torch.int16), torch.arange(1500, dtype=torch.uint8).remainder(7)
    small = torch.ones(3)
    packed = {KEY: {"version": 1, "tensors": [{"values": [first, second]}, {"of": small, "values": first}]}, "step": 3}
    entry, parts = split(packed, 10_000)
    assert parts == []  # 4000 + 1500 bytes, and what a file of them has beside
    packed[KEY]["tensors"].append({"values": torch.arange(1000, dtype=torch.int32)})  # type: ignore[index]
    entry, parts = split(packed, 10_000)
    where = [{ROW: ["int16", 0, 4000]}, {ROW: ["uint8", 4000, 1500]}]
    assert entry["step"] == 3
    assert entry[KEY]["version"] == 2
    assert entry[KEY]["tensors"] == [
        {"values": where},
        {"of": small, "values": where[0]},  # what is there twice is in the row once
        {"values": {ROW: ["int32", 5500, 4000]}},
    ]
    assert entry[KEY]["parts"] == {"token": parts[0].token, "sizes": [5904, 3596]}
    row = torch.cat(contents(parts)).tolist()
    assert row[2 * 300 : 2 * 300 + 2] == [300 % 256, 300 // 256]
    assert row[4000 + 9] == 2
    assert row[5500 + 4 * 257 : 5500 + 4 * 258] == [1, 1, 0, 0]
    joined = join(entry, contents(parts))
    same(joined, packed)
    tensors = joined[KEY]["tensors"]
    assert tensors[0]["values"][0] is tensors[1]["values"]
    assert tensors[0]["values"][0].untyped_storage().nbytes() == 4000  # with no memory but its own


def test_every_entry_has_a_token_of_its_own_and_draws_nothing() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    packed = pack(checkpoint())
    state = torch.get_rng_state()
    tokens = {split(packed, LEAST_LIMIT)[1][0].token for _ in range(5)}
    assert len(tokens) == 5
    assert torch.equal(torch.get_rng_state(), state)


def test_what_hardly_packs_at_all_is_cut_too() -> None:
    before = {f"{i}": torch.zeros(256, 256) for i in range(40)}  # refused as packed: nothing grows as they would
    entry, parts = split(pack(before), 10**6)
    assert len(parts) == 11
    same(unpack(join(entry, contents(parts))), before)


def _first(packed: dict[str, Any]) -> list[Any]:
    found: list[Any] = packed["tensors"][0]["values"][ROW]
    return found


def _put(index: int, value: Any) -> Callable[[dict[str, Any]], None]:
    def damage(packed: dict[str, Any]) -> None:
        _first(packed)[index] = value

    return damage


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no tensors": lambda packed: packed.pop("tensors"),
    "another dtype": _put(0, "float32"),
    "a place before the first": _put(1, -8),
    "a place after the last": _put(1, 10**9),
    "no place": _put(1, "text"),
    "a negative length": _put(2, -4),
    "a large length": _put(2, 10**9),
    "no multiple of a value": _put(2, 1027),
    "more than there is": lambda packed: packed["tensors"].extend(
        {"values": {ROW: ["uint8", begin, 2000]}} for begin in range(100)
    ),
    "no pair": lambda packed: _first(packed).pop(),
    "no parts": lambda packed: packed.pop("parts"),
    "parts that are none": lambda packed: packed.update(parts=[]),
    "a token that leads elsewhere": lambda packed: packed["parts"].update(token="../../../etc/pass"),
    "sizes that are none": lambda packed: packed["parts"].update(sizes=["many"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_makes_no_sense_is_refused(damage: str) -> None:
    tensors = [{"values": torch.arange(3000, dtype=torch.int32)}, {"values": torch.zeros(5000, dtype=torch.uint8)}]
    entry, parts = split({KEY: {"version": 1, "tensors": tensors}}, LEAST_LIMIT)
    DAMAGES[damage](entry[KEY])

    def put_together() -> None:
        assert parts_of(entry) is not None
        join(entry, contents(parts))

    with pytest.raises(ValueError, match="cannot be put together"):
        put_together()
