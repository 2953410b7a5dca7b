"""Packed products are operators that torch exports and compiles, and that read nothing beyond their inputs."""

from collections.abc import Callable

import pytest
import torch
from packed_modules import close, partly, small, sparse
from torch import nn

pytestmark = pytest.mark.usefixtures("_kernel")


def test_export_and_compile_see_operators() -> None:
    module = sparse(nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 20)))
    packed, x = small(module), torch.randn(3, 20)
    with torch.no_grad():
        program = torch.export.export(packed, (x,))
        assert "packed_linear" in str(program.graph)
        assert program.module()(x).equal(packed(x))
        assert torch.compile(packed, backend="eager", fullgraph=True)(x).equal(packed(x))
        layers = small(sparse(nn.GRU(20, 30)))
        sequence = torch.randn(4, 2, 20)
        exported = torch.export.export(layers, (sequence,)).module()
        assert close(exported(sequence), layers(sequence))


@pytest.mark.parametrize("make", [
    lambda: sparse(nn.Linear(20, 30), 0.05), lambda: sparse(nn.LSTM(20, 30)), lambda: partly(nn.RNN, "hh"),
])  # fmt: skip
def test_an_exported_or_compiled_module_takes_any_number_of_columns(make: Callable[[], nn.Module]) -> None:
    module = make()
    packed, columns = small(module), torch.export.Dim("columns")
    with torch.no_grad():
        made = (
            torch.export.export(packed, (torch.randn(16, 50, 20),), dynamic_shapes=({1: columns},)).module(),
            torch.compile(packed, backend="eager", fullgraph=True, dynamic=True),
        )
        for count in (3, 50):
            x = torch.randn(16, count, 20)
            assert all(close(each(x), module(x)) for each in made)


@pytest.mark.parametrize("index", [-1, 30])
def test_a_compiled_or_exported_embedding_refuses_what_it_has_no_row_for(index: int) -> None:
    packed = small(sparse(nn.Embedding(30, 20)))
    good, bad = torch.tensor([0, 29]), torch.tensor([3, index])
    with torch.no_grad():
        made = (torch.compile(packed, backend="eager"), torch.export.export(packed, (good,)).module())
        for module in (packed, *made):
            assert module(good).shape == (2, 20)
            with pytest.raises(IndexError, match=r"Expected indices from 0 to 29, got some from"):
                module(bad)


def test_operators_hold_to_torchs_rules() -> None:
    packed = small(sparse(nn.Linear(20, 30))).packed["weight"]
    operators = torch.ops.lightning_sparse_rnn
    with torch.no_grad():
        torch.library.opcheck(operators.packed_linear.default, (torch.randn(2, 20), *packed._parts, None, 30))
        torch.library.opcheck(operators.packed_rows.default, (torch.tensor([1, 2]), *packed._parts, 30, 20))


def test_operators_refuse_what_the_kernel_would_read_beyond() -> None:
    parts = small(sparse(nn.LSTM(20, 30))).packed["weight_hh_l0"]._parts
    operators, x = torch.ops.lightning_sparse_rnn, torch.randn(2, 30)
    for wrong, bias in ((x[:, 1:], None), (x.double(), None), (x.bfloat16(), None), (x, torch.zeros(119))):
        with pytest.raises(ValueError, match=r"Expected an? (input|bias) of torch.float32 and shape"):
            operators.packed_linear(wrong, *parts, bias, 120)
    inputs, expected = torch.randn(4, 2, 120), "Expected an? (input|state|cell state) of torch.float32 and shape"
    for wrong in ((inputs[:, 1:], x, x), (inputs.bfloat16(), x, x), (inputs, x[1:], x), (inputs, x, x.half())):
        with pytest.raises(ValueError, match=expected):
            operators.packed_recurrence(*wrong, *parts, None, 0, False)
