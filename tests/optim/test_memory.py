"""What optimizers remember of weights that died or were born is forgotten, in whatever form they keep it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sparse_rnn.optim.memory import check_memory, forget

MASK = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
BORN = torch.tensor([[True, False, False], [False, False, False]])
STAYS = (MASK == 1) & ~BORN


class Encoded(Tensor):
    """A tensor that keeps tenths as whole numbers, and decodes and encodes itself."""

    @staticmethod
    def of(values: Tensor) -> Encoded:
        encoded = torch.Tensor._make_subclass(Encoded, torch.zeros_like(values))
        encoded.codes = (values * 10).round().to(torch.int8)
        return encoded

    def dequantize(self) -> Tensor:
        return self.codes.float() / 10

    def copy_(self, values: Tensor) -> Encoded:
        self.codes = (values * 10).round().to(torch.int8)
        return self

    def mul_(self, *_: Any) -> Tensor:
        raise NotImplementedError


def optimizer_with(**state: Any) -> tuple[torch.optim.Optimizer, dict[Tensor, Tensor], dict[Tensor, Tensor]]:
    parameter = torch.nn.Parameter(MASK.clone())
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter].update(state)
    return optimizer, {parameter: MASK}, {parameter: BORN}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3)])
def test_numbers_and_truth_values_become_zero_of_what_died_or_was_born(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    value = torch.full(shape, 1).to(dtype)
    optimizer, masks, born = optimizer_with(value=value)
    check_memory(optimizer, masks)
    forget(optimizer, masks, born)
    assert torch.equal(value != 0, STAYS.expand(shape))
    forget(optimizer, masks, {})
    assert torch.equal(value != 0, STAYS.expand(shape))


def test_codes_become_that_of_zero() -> None:
    table = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    codes = torch.tensor([[4, 3, 1], [0, 4, 3]], dtype=torch.uint8)
    before = codes.clone()
    optimizer, masks, born = optimizer_with(state1=codes, qmap1=table, absmax1=torch.ones(1))
    check_memory(optimizer, masks)
    forget(optimizer, masks, born)
    assert torch.equal(table[codes.long()], torch.where(STAYS, table[before.long()], 0.0))


def test_tensors_that_encode_themselves_are_decoded_and_encoded() -> None:
    value = Encoded.of(torch.full((2, 3), 0.7))
    optimizer, masks, born = optimizer_with(value=value)
    check_memory(optimizer, masks)
    forget(optimizer, masks, born)
    torch.testing.assert_close(value.dequantize(), torch.where(STAYS, 0.7, 0.0))


@pytest.mark.parametrize(
    "state",
    [
        {"exp_avg": torch.ones(2, 3, dtype=torch.int8)},
        {"state1": torch.ones(2, 3, dtype=torch.uint8)},
        {"state1": torch.ones(2, 3, dtype=torch.uint8), "qmap1": torch.tensor([0.5, 1.0])},
    ],
)
def test_codes_whose_zero_is_not_known_are_refused_by_name(state: dict[str, Tensor]) -> None:
    optimizer, masks, _ = optimizer_with(**state)
    with pytest.raises(ValueError, match=rf"SGD keeps '{next(iter(state))}' of each weight as u?int8"):
        check_memory(optimizer, masks)


def test_sums_over_rows_and_counts_are_left_as_they_are() -> None:
    row, step = torch.ones(2), torch.tensor(5.0)
    optimizer, masks, born = optimizer_with(row=row, step=step)
    forget(optimizer, masks, born)
    assert row.tolist() == [1.0, 1.0]
    assert step == 5


@pytest.mark.parametrize("name", ["factor", "precond_0"])
def test_square_matrices_of_rows_and_columns_are_left_as_they_are(name: str) -> None:
    # As Shampoo keeps them: those of a square weight have its shape, and a weight that is not square tells them apart.
    square, wide = torch.nn.Parameter(torch.ones(3, 3)), torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.SGD([square, wide] if name == "factor" else [square], lr=0.1)
    optimizer.state[square].update({name: torch.ones(3, 3), "momentum_buffer": torch.ones(3, 3)})
    if name == "factor":
        optimizer.state[wide].update({name: torch.ones(2, 2)})
    mask = torch.eye(3)
    forget(optimizer, {square: mask}, {square: torch.zeros(3, 3, dtype=torch.bool)})
    assert torch.equal(optimizer.state[square][name], torch.ones(3, 3))
    assert torch.equal(optimizer.state[square]["momentum_buffer"], mask)
