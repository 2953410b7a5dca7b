"""Masks as bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits, unpack_bits


def test_the_order_of_the_bits_is_that_of_files_there_are() -> None:
    mask = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 1, 0, 1]], dtype=torch.bool)
    assert pack_bits(mask).tolist() == [0b1000_0011, 0b0100_0000]
    assert unpack_bits(torch.tensor([0b1000_0011, 0b0100_0000], dtype=torch.uint8), 10).view(2, 5).equal(mask)


@given(st.lists(st.booleans(), max_size=40), st.sampled_from([torch.bool, torch.float32, torch.bfloat16, torch.int64]))
def test_what_is_packed_is_unpacked(entries: list[bool], dtype: torch.dtype) -> None:
    mask = torch.tensor(entries, dtype=torch.bool)
    bits = pack_bits(mask.to(dtype) * 3)
    assert (bits.dtype, bits.numel()) == (torch.uint8, -(-len(entries) // 8))
    again = unpack_bits(bits, len(entries))
    assert again.dtype == torch.bool
    assert again.equal(mask)


def test_masks_that_are_trained_or_no_block_of_memory() -> None:
    mask = torch.nn.Parameter(torch.eye(5))
    assert unpack_bits(pack_bits(mask[1:].t()), 20).view(5, 4).equal(mask[1:].t() != 0)


@pytest.mark.parametrize(
    ("bits", "error", "said"),
    [
        (torch.zeros(1, dtype=torch.uint8), ValueError, r"Expected 2 bytes of bits for 9 positions, got uint8 \(1,\)"),
        (torch.zeros(3, dtype=torch.uint8), ValueError, r"got uint8 \(3,\)"),
        (torch.zeros(1, 2, dtype=torch.uint8), ValueError, r"got uint8 \(1, 2\)"),
        (torch.zeros(2, dtype=torch.bool), ValueError, r"got bool \(2,\)"),
        ([0, 0], TypeError, "Expected bits as a tensor, got list"),
    ],
)
def test_what_are_not_that_many_bits_is_refused(bits: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        unpack_bits(bits, 9)  # type: ignore[arg-type]
