"""How products of float32 numbers are rounded: what is asked for, and nothing that torch would only warn of."""

from collections.abc import Iterator

import pytest
import torch

from lightning_sparse_rnn.runs.matmul_precision import set_matmul_precision


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before, recurrent = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = recurrent


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_torch_is_told(precision: str) -> None:
    set_matmul_precision(precision)
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cudnn.allow_tf32 == (precision != "highest")


def test_an_unknown_one_is_refused_and_changes_nothing() -> None:
    set_matmul_precision("high")
    with pytest.raises(ValueError, match="one of highest, high, medium, got 'low'"):
        set_matmul_precision("low")
    assert torch.get_float32_matmul_precision() == "high"
