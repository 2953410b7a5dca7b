"""Triton's kernels compute what the recurrences compute without them.

Where there is a GPU they run there. Elsewhere Triton interprets them, and its compiler makes them for GPUs that are not
there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_sparse_rnn.models import OrderedNeuronsLSTM, RecurrentHighwayNetwork
from lightning_sparse_rnn.models.kernels import highway_recurrence, ordered_recurrence, triton_launch

# Before 3.2 its interpreter does not compute what its compiler makes.
pytest.importorskip("triton", minversion="3.2", reason="needs Triton 3.2, which is for Linux alone")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(DEVICE, dtype)


def assert_close(found, expected, dtype: torch.dtype) -> None:
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("gates", [2, 3])
@pytest.mark.parametrize(("steps", "columns", "features", "depth"), [(3, 2, 5, 3), (1, 3, 8, 1), (2, 1, 300, 2)])
def test_highway(steps, columns, features, depth, gates, masked, dtype):
    rows, scale = gates * features, features**-0.5
    weights = [scale * random(rows, features, dtype=dtype) for _ in range(depth)]
    parameters = [*weights, *(random(rows) for _ in range(depth - 1))]
    inputs, state = random(columns, steps, rows, dtype=dtype).transpose(0, 1), random(columns, features)
    mask = (random(columns, features) > 0) * 2.0 if masked else None
    plain = highway_recurrence._forward.__wrapped__
    kernels = triton_launch._kernels("highway_triton")
    expected = plain(inputs, state, mask, True, *parameters)
    assert_close(kernels.forward(inputs, state, mask, True, *parameters), expected, dtype)
    chain, _, _ = kernels.forward(inputs, state, mask, False, *parameters)
    assert_close([chain], expected[:1], dtype)
    grad = random(columns, steps, features).transpose(0, 1)
    found = kernels.backward(grad, *expected, mask, *weights)
    assert_close(found, highway_recurrence._backward_to_gates(grad, *expected, mask, *weights), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("steps", "columns", "chunks", "neurons"), [(3, 2, 5, 3), (1, 3, 4, 2), (2, 1, 1, 7), (2, 2, 9, 1)]
)
def test_ordered_neurons(steps, columns, chunks, neurons, dtype):
    features = chunks * neurons
    rows = 2 * chunks + 4 * features
    weight = features**-0.5 * random(rows, features, dtype=dtype)
    inputs = random(columns, steps, rows, dtype=dtype).transpose(0, 1)
    arguments = inputs, random(columns, features), random(columns, features), weight, chunks
    kernels = triton_launch._kernels("ordered_triton")
    outputs, cells, gates = expected = ordered_recurrence._forward.__wrapped__(*arguments, True)
    assert_close(kernels.forward(*arguments, True), expected, dtype)
    found, last, _ = kernels.forward(*arguments, False)
    assert_close([found, last[-1]], [outputs, cells[-1]], dtype)
    grad_outputs, grad_cell = random(columns, steps, features).transpose(0, 1), random(features, columns).t()
    for grads in [(grad_outputs, grad_cell), (grad_outputs, None), (None, grad_cell)]:
        plain = ordered_recurrence._backward_to_gates(*grads, cells, gates, weight, chunks)
        assert_close(kernels.backward(*grads, cells, gates, weight, chunks), plain, dtype)


NETWORKS = [
    (RecurrentHighwayNetwork, {"embedding_size": 6, "hidden_size": 6, "depth": 3}),
    (OrderedNeuronsLSTM, {"embedding_size": 6, "hidden_size": 8, "chunk_size": 2, "num_layers": 2}),
]


@pytest.mark.parametrize(("kind", "options"), NETWORKS)
def test_networks_learn_the_same_with_fused_cells(kind, options, monkeypatch):
    torch.manual_seed(0)
    network = kind(11, **options).to(DEVICE)
    tokens, targets = torch.randint(11, (2, 4, 3)).to(DEVICE)

    def run() -> list[torch.Tensor]:
        torch.manual_seed(1)
        output = network.train()(tokens)
        output = network(tokens, output.state)
        loss = network.loss(output.hidden, targets)
        with torch.no_grad():
            evaluated = network.eval()(tokens)
        state = torch.utils._pytree.tree_leaves(evaluated.state)
        return [loss, *torch.autograd.grad(loss, network.parameters()), evaluated.hidden, *state]

    taken = []
    found = []
    for choose in (lambda *_: None, lambda name, *_: taken.append(name) or triton_launch._kernels(name)):
        for module in (highway_recurrence, ordered_recurrence):
            monkeypatch.setattr(module, "fused_cells", choose)
        found.append(run())
    # At least once in training and once in evaluation; what is recorded asks no more.
    assert len(taken) >= 2
    assert_close(*found, torch.float32)


def test_kernels_are_for_gpus_and_no_more_than_single_precision(monkeypatch):
    monkeypatch.setattr(triton_launch, "_triton_works_on", lambda device: True)
    assert triton_launch.fused_cells("highway_triton", torch.ones(1)) is None
    if DEVICE.type == "cuda":
        single, double = random(1), random(1, dtype=torch.float64)
        assert triton_launch.fused_cells("highway_triton", single, single) is triton_launch._kernels("highway_triton")
        assert triton_launch.fused_cells("highway_triton", single, double) is None


def test_without_a_working_triton_there_are_no_fused_cells(monkeypatch, recwarn):
    def raises(error: Exception):
        def kernels(module: str):
            raise error

        return kernels

    monkeypatch.setattr(triton_launch, "_kernels", raises(ModuleNotFoundError("No module named 'triton'")))
    assert not triton_launch._triton_works_on.__wrapped__(DEVICE)
    assert not recwarn
    monkeypatch.setattr(triton_launch, "_kernels", raises(RuntimeError("Failed to find C compiler.")))
    with pytest.warns(UserWarning, match=f"Triton does not work on {DEVICE}.*slower and right.*find C compiler"):
        assert not triton_launch._triton_works_on.__wrapped__(DEVICE)


def test_kernels_compile_for_gpus_that_are_not_here():
    script = Path(__file__).parents[2] / "helpers" / "compile_kernels.py"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    modules = ("gru", "highway", "lstm", "ordered")
    kernels = [f"{module}_triton.{kernel}_cell" for module in modules for kernel in ("_backward", "_forward")]
    assert done.stdout.split() == kernels
