"""Torch's recurrent layers one by one, by cuDNN's interface and by fused cells, against torch's own modules.

Where there is a GPU the kernels run there. Elsewhere Triton interprets them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.models import AWDLSTM, GRU, LSTM, AWDLSTMMoS
from lightning_sparse_rnn.models.awd_lstm import WeightDropLSTM
from lightning_sparse_rnn.models.kernels import gru_recurrence, half_products, layer_by_layer, lstm_recurrence
from lightning_sparse_rnn.models.kernels.layer_by_layer import run_stacked
from lightning_sparse_rnn.models.kernels.triton_launch import _kernels

# Before 3.2 its interpreter does not compute what its compiler makes.
pytest.importorskip("triton", minversion="3.2", reason="needs Triton 3.2, which is for Linux alone")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = [(3, 2, 4, 5), (5, 3, 7, 300), (1, 1, 3, 8)]  # steps, columns, features in and out
# By how much gradients may differ, as a share of their norm: torch's own differ as much with TF32 and bfloat16.
TOLERANCE = {"highest": 1e-5, "high": 1e-3, "medium": 1e-2}
KINDS = {nn.LSTM: lstm_recurrence.lstm_layer, nn.GRU: gru_recurrence.gru_layer}


@pytest.fixture(autouse=True)
def _kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(layer_by_layer, "_DEVICE", DEVICE.type)
    for module in (layer_by_layer, lstm_recurrence, gru_recurrence):
        monkeypatch.setattr(module, "fused_cells", lambda name, *tensors: _kernels(name))
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def _the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout whose draws depend on a tensor's shape alone; on a GPU those of torch depend on where it lies, too."""

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return x * (torch.rand(x.shape) >= p).to(x) / (1 - p) if training else x

    monkeypatch.setattr(F, "dropout", dropout)


def start(kind: type[nn.Module], *shape: int) -> Any:
    h, c = torch.randn(2, *shape, device=DEVICE)
    return (h.requires_grad_(), c.requires_grad_()) if kind is nn.LSTM else h.requires_grad_()


def gradients(output: Tensor, end: Any, weight: Tensor, wrt: list[Tensor]) -> list[Tensor]:
    """Of what depends on all outputs, each by another weight, and on the last state."""
    last = end[1] if isinstance(end, tuple) else end
    return [output, last, *torch.autograd.grad((output * weight).sum() + weight.mean() * last.sum(), wrt)]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


# Gradients of float16's range, and far below it.
@pytest.mark.parametrize(("precision", "scale"), [("highest", 1.0), ("high", 1.0), ("high", 1e-7), ("medium", 1.0)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "columns", "features", "size"), SHAPES)
def test_a_fused_layer_is_torchs(kind, steps, columns, features, size, precision, scale):
    torch.set_float32_matmul_precision(precision)
    layer, x = kind(features, size).to(DEVICE), torch.randn(steps, columns, features, device=DEVICE, requires_grad=True)
    state, weight = start(kind, 1, columns, size), scale * torch.randn(steps, columns, size, device=DEVICE)
    wrt = [x, *(state if kind is nn.LSTM else [state]), *layer.parameters()]
    found = gradients(*KINDS[kind](x, state, *layer.all_weights[0]), weight, wrt)
    torch.set_float32_matmul_precision("highest")
    assert_near(found, gradients(*layer(x, state), weight, wrt), TOLERANCE[precision])
    with torch.no_grad():
        output, end = layer(x, state)
        ours, our_end = KINDS[kind](x, state, *layer.all_weights[0])
    torch.testing.assert_close([ours, our_end], [output, end])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_beyond_float16_are_no_infinities(kind):
    torch.set_float32_matmul_precision("high")
    layer = kind(2, 4).to(DEVICE)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(40.0)  # a recurrence that explodes
        layer.weight_ih_l0.zero_(), layer.bias_ih_l0.zero_(), layer.bias_hh_l0.zero_()
    x = torch.zeros(12, 2, 2, device=DEVICE)
    zeros = torch.zeros(1, 2, 4, device=DEVICE)
    output, _ = KINDS[kind](x, (zeros, zeros) if kind is nn.LSTM else zeros, *layer.all_weights[0])
    for gradient in torch.autograd.grad(output[-1].sum(), list(layer.parameters())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_scale_is_a_power_of_two_that_brings_gradients_into_range(dtype):
    for largest in (3e-9, 0.7, 1e4):
        scale, inverse = half_products.range_scale(largest * torch.rand(5, 5).clamp(0.01, 1.0).fill_diagonal_(1.0))
        assert 8.0 < largest * scale.item() <= 16.0
        assert scale.log2().item() == int(scale.log2().item())
        assert (scale * inverse).item() == 1.0
    assert half_products.range_scale(torch.zeros(3))[0].isfinite().all()
    one, other = torch.randn(3, 300).to(dtype), torch.randn(300, 2).to(dtype)
    assert torch.equal(half_products.product(one, other), one.float() @ other.float())


@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_what_the_precision_of_products_allows(kind):
    inputs = torch.zeros(1)
    expected = {"highest": torch.float32, "high": torch.float16, "medium": torch.bfloat16}
    for precision, dtype in expected.items():
        torch.set_float32_matmul_precision(precision)
        assert half_products.factor_dtype(inputs) == dtype
        assert half_products.factor_dtype(inputs.bfloat16()) == torch.bfloat16  # under autocast


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_one_by_one_are_the_module(kind, given, fused):
    layers = kind(3, 5, 3, dropout=0.5).to(DEVICE).eval()
    x, state = torch.randn(4, 2, 3, device=DEVICE), start(kind, 3, 2, 5)
    with torch.no_grad():
        expected = layers(x, state if given else None)
        # Without dropout and fused cells the module is called as it is.
        torch.testing.assert_close(run_stacked(layers, x, state if given else None, fused), expected)


@pytest.mark.usefixtures("_the_same_masks")
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_is_torchs(kind, fused):
    layers, x = kind(3, 5, 2, dropout=0.5).to(DEVICE), torch.randn(4, 2, 3, device=DEVICE)
    singles = [kind(size, 5).to(DEVICE) for size in (3, 5)]
    for layer, single in enumerate(singles):
        own = {name: value for name, value in layers.state_dict().items() if name.endswith(str(layer))}
        single.load_state_dict({f"{name[:-1]}0": value for name, value in own.items()})
    torch.manual_seed(3)
    output, end = run_stacked(layers, x, None, fused)
    torch.manual_seed(3)
    between, first = singles[0](x)
    expected, second = singles[1](F.dropout(between, 0.5))
    torch.testing.assert_close(output, expected)
    if kind is nn.GRU:
        end, first, second = (end,), (first,), (second,)
    for part, parts in zip(end, zip(first, second, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(parts))


def test_hooks_of_the_module_are_heeded():
    layers, x = nn.GRU(3, 5, 2, dropout=0.5).to(DEVICE), torch.randn(4, 2, 3, device=DEVICE)
    layers.register_forward_hook(lambda module, args, output: (0 * output[0], output[1]))
    assert not run_stacked(layers, x, None, True)[0].any()


def test_a_fused_layer_drops_weights_of_its_hidden_matrix():
    torch.manual_seed(0)
    ours, theirs = (WeightDropLSTM(3, 6, 0.5, fused).to(DEVICE) for fused in (True, False))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 2, 3, device=DEVICE)
    found = []
    for layer in (ours, theirs):
        torch.manual_seed(5)
        output, (_, cell) = layer(x)
        found.append([output, cell, *torch.autograd.grad(output.sum() + cell.exp().sum(), layer.parameters())])
    assert not torch.equal(ours(x)[0], found[0][0])
    assert_near(*found, 1e-5)


NETWORKS = {
    "lstm": lambda fused: LSTM(11, 4, 5, dropout=0.5, fused_cells=fused),
    "gru": lambda fused: GRU(11, 4, 5, dropout=0.5, fused_cells=fused),
    "awd": lambda fused: AWDLSTM(11, 4, 6, fused_cells=fused),
    "mixture": lambda fused: AWDLSTMMoS(11, 4, 6, last_size=5, experts=2, fused_cells=fused),
}


@pytest.mark.usefixtures("_the_same_masks")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_learn_the_same_with_fused_cells(name):
    ours, theirs = (NETWORKS[name](fused).to(DEVICE) for fused in (True, False))
    theirs.load_state_dict(ours.state_dict())
    tokens, targets = torch.randint(11, (2, 6, 3)).to(DEVICE)
    found = []
    for network in (ours, theirs):
        torch.manual_seed(1)
        state = network(tokens).state
        output = network(tokens, state)
        loss = network.loss(output.hidden, targets)
        found.append([output.raw, *torch.autograd.grad(loss, network.parameters())])
    assert_near(*found, 1e-4)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA GPU")
def test_cudnn_is_quiet_about_weights_it_has_to_gather():
    layers, x = nn.LSTM(3, 5, 2, dropout=0.5).to(DEVICE), torch.randn(4, 2, 3, device=DEVICE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer_by_layer.expect_scattered_weights.__wrapped__()
        run_stacked(layers, x, None, False)
