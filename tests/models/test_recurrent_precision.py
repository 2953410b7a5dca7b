"""Recurrent layers under autocast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_sparse_rnn.models import recurrent_precision as module
from lightning_sparse_rnn.models.recurrent_precision import run_recurrent


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_layers_run_in_float32_where_autocast_is_to_bfloat16(kind, monkeypatch):
    monkeypatch.setattr(module, "_DEVICE", "cpu")  # whose autocast can be had everywhere
    layers, x = kind(3, 4), torch.randn(5, 2, 3)
    expected, _ = layers(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = run_recurrent(layers, x.bfloat16().float(), None)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected, rtol=0.05, atol=0.05)
        low = torch.utils._pytree.tree_map(torch.Tensor.bfloat16, state)
        again, _ = run_recurrent(layers, x.bfloat16(), low)
        assert again.dtype == torch.float32


def test_layers_are_left_alone_without_autocast():
    layers, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    output, state = run_recurrent(layers, x, None)
    expected, ends = layers(x)
    assert torch.equal(output, expected)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(state, ends, strict=True))
