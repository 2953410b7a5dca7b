"""Taking out what stands where a mask is true, and putting it back, against torch's own indexing."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_sparse_rnn.sparsity.numerics import compaction
from lightning_sparse_rnn.sparsity.numerics.compaction import compact, compact_into, count_true, expand, positions_of

DTYPES = [torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]


@given(
    dtype=st.sampled_from(DTYPES), length=st.integers(0, 40), density=st.floats(0, 1), seed=st.integers(0, 2**32 - 1)
)
@example(dtype=torch.float32, length=200_000, density=0.33, seed=0)  # several pieces
@example(dtype=torch.bool, length=65_536, density=1.0, seed=0)
def test_against_indexing(dtype: torch.dtype, length: int, density: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(length, generator=generator).mul_(3).to(dtype)
    where = torch.rand(length, generator=generator) < density
    taken = compact(values, where)
    assert taken.dtype == dtype
    assert torch.equal(taken, values[where])
    assert torch.equal(expand(taken, where), torch.where(where, values, torch.zeros_like(values)))
    assert count_true(where) == len(taken)
    assert torch.equal(positions_of(where), where.nonzero().squeeze(1))


def test_bits_are_kept() -> None:
    values = torch.tensor([0x7FC0_1234, -0x8000_0000, 1, 0], dtype=torch.int32).view(torch.float32)  # NaN, -0.0
    where = torch.tensor([True, True, False, True])
    expected = values[where].view(torch.int32)
    assert torch.equal(compact(values, where).view(torch.int32), expected)
    assert torch.equal(expand(compact(values, where), where).view(torch.int32)[where], expected)


def test_parts_of_tensors() -> None:
    values, where = torch.arange(20.0)[3:15], (torch.arange(40) % 3 == 0)[7:19]
    out = torch.full((10,), -1.0)
    compact_into(out[2 : 2 + count_true(where)], values, where)
    assert out.tolist() == [-1, -1, *values[where].tolist(), *[-1] * (8 - count_true(where))]


def test_where_numpy_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_is_here", lambda tensor: False)
    values, where = torch.arange(6.0), torch.tensor([True, False, True, True, False, False])
    assert compact(values, where).tolist() == [0, 2, 3]
    assert expand(torch.tensor([4.0, 5.0, 6.0]), where).tolist() == [4, 0, 5, 6, 0, 0]
    assert positions_of(where).tolist() == [0, 2, 3]
    assert count_true(where) == 3
