"""Products with weights against torch's own."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_sparse_rnn.models.kernels.linear import Linear, linear, repeated_product


def derivatives(function, dtype, shape, biased):
    """A value, its gradients, and the gradients of these."""
    generator = torch.Generator().manual_seed(len(shape))
    x, weight = torch.randn(*shape, 7, generator=generator), torch.randn(5, 7, generator=generator)
    inputs = [tensor.to(dtype).requires_grad_() for tensor in (x, weight, torch.randn(5, generator=generator))]
    inputs = inputs if biased else inputs[:2]
    value = function(*inputs).tanh().sum()
    gradients = torch.autograd.grad(value, inputs, create_graph=True)
    return [value, *gradients, *torch.autograd.grad(sum(g.pow(2).sum() for g in gradients), inputs)]


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 4), (0,)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_is_torchs_and_so_are_its_derivatives(shape, biased):
    given = derivatives(linear, torch.float32, shape, biased)
    expected = derivatives(F.linear, torch.float64, shape, biased)
    for ours, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)


def test_linear_of_views_leaves_them_as_they_are():
    x, weight = torch.randn(7, 4).t(), torch.randn(7, 5).t()
    before = x.clone(), weight.clone()
    torch.testing.assert_close(linear(x, weight), x @ weight.t())
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_gets_no_gradient(frozen):
    layer, x = Linear(3, 2), torch.randn(4, 3)
    getattr(layer, frozen).requires_grad_(False)
    layer(x).sum().backward()
    assert [name for name, parameter in layer.named_parameters() if parameter.grad is None] == [frozen]


def test_linear_in_other_precisions_is_torchs():
    layer, x = Linear(3, 2), torch.randn(4, 3)
    with torch.autocast("cpu"):
        assert layer(x).dtype == torch.bfloat16
    for dtype in (torch.float64, torch.bfloat16):
        layer.to(dtype)
        assert torch.equal(layer(x.to(dtype)), F.linear(x.to(dtype), layer.weight, layer.bias))


def test_linear_goes_through_torchs_transforms():
    weight, x = torch.randn(2, 3), torch.randn(4, 3)
    torch.testing.assert_close(torch.func.grad(lambda w: linear(x, w).sum())(weight), x.sum(0).expand(2, 3))
    of_each = torch.func.vmap(torch.func.grad(lambda row, w: linear(row, w).sum(), argnums=1), (0, None))
    torch.testing.assert_close(of_each(x, weight), x[:, None].expand(4, 2, 3))
    torch.testing.assert_close(torch.func.jacrev(linear)(x[0], weight), weight)


@pytest.mark.parametrize("bias", [torch.randn(10)[::2], torch.randn(1).expand(5), torch.randn(1), torch.randn(1, 5)])
def test_linear_takes_any_bias_that_torchs_takes(bias):
    x, weight = torch.randn(4, 3), torch.randn(5, 3)
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))


def test_linear_takes_and_refuses_the_shapes_that_torchs_does():
    assert linear(torch.ones(4, 3), torch.ones(3)).tolist() == [3.0] * 4
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(torch.ones(4, 3), torch.ones(5, 7))


def test_the_module_can_be_loaded_again():
    module = importlib.import_module("lightning_sparse_rnn.models.kernels.linear")
    before = dict(vars(module))
    try:
        importlib.reload(module)
    finally:
        vars(module).update(before)  # others hold the classes of the first time


def test_a_linear_layer_is_torchs_to_whoever_looks():
    torch.manual_seed(1)
    ours = Linear(3, 2)
    torch.manual_seed(1)
    theirs = nn.Linear(3, 2)
    assert isinstance(ours, nn.Linear)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("times", [1, 30])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("columns", [1, 20])
def test_product(times, transposed, columns):
    weight = torch.randn(40, 60).t() if transposed else torch.randn(60, 40)
    product = repeated_product(weight, columns, times)
    for _ in range(3):
        x = torch.randn(columns, 40)
        torch.testing.assert_close(product(x), x @ weight.t(), rtol=1e-4, atol=1e-5)
