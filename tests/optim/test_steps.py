"""Every way of taking a step computes what the formula says; Triton's is interpreted where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sparse_rnn.optim import steps
from lightning_sparse_rnn.optim.steps import Step, step_by_kernel, step_foreach, step_one_by_one

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = [(3, 5), (1,), (7, 300), (2048,), (2, 3, 4)]


def kernels() -> Any:
    pytest.importorskip("triton", minversion="3.2", reason="needs Triton 3.2, which is for Linux alone")
    return import_module("lightning_sparse_rnn.optim.steps_triton")


def random_step(dtype: torch.dtype, summed: bool, **numbers: Any) -> Step:
    weights = [torch.randn(shape).to(DEVICE, dtype) for shape in SHAPES]
    masks: list[Tensor | None] = [(torch.rand_like(weight) < 0.5).to(dtype) for weight in weights]
    masks[2] = None
    for weight, mask in zip(weights, masks, strict=True):
        if mask is not None:
            weight.mul_(mask)
    gradients = [torch.randn_like(weight) for weight in weights]
    sums = [torch.randn_like(weight, dtype=torch.promote_types(dtype, torch.float32)) for weight in weights]
    return Step(weights, gradients, masks, sums if summed else None, **numbers)


def by_formula(step: Step) -> tuple[list[Tensor], list[Tensor]]:
    """The new weights and sums, in double precision."""
    weights, sums = [], []
    for index, weight in enumerate(step.weights):
        mask = step.masks[index]
        live = 1.0 if mask is None else mask.double()
        new = float(step.decay) * weight.double() + float(step.move) * step.gradients[index].double() * live
        weights.append(new)
        sums.append(new + (0.0 if step.sums is None else step.sums[index].double()))
    return weights, sums


def check(step: Step, expected: tuple[list[Tensor], list[Tensor]], dtype: torch.dtype) -> None:
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    for found, right in zip(step.weights, expected[0], strict=True):
        torch.testing.assert_close(found.double(), right, **tolerance)
    for found, right in zip(step.sums or [], expected[1], strict=step.sums is not None):
        torch.testing.assert_close(found.double(), right, **tolerance)
    for weight, mask in zip(step.weights, step.masks, strict=True):
        assert mask is None or not weight[mask == 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("way", [step_one_by_one, step_foreach])
def test_steps_of_torch(way: Any, summed: bool, dtype: torch.dtype) -> None:
    step = random_step(dtype, summed, decay=0.9, move=-0.3)
    expected = by_formula(step)
    way(step)
    check(step, expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize(
    "numbers",
    [
        {"decay": 0.9, "move": -0.3},
        {"decay": 1.0, "move": 1},
        {"decay": torch.tensor(0.9), "move": torch.tensor([-0.3])},
        {"decay": torch.tensor(0.9, dtype=torch.float64), "move": -0.3},
    ],
    ids=["numbers", "whole numbers", "tensors", "both"],
)
def test_steps_by_kernel(numbers: dict[str, Any], summed: bool, dtype: torch.dtype) -> None:
    numbers = {name: value.to(DEVICE) if isinstance(value, Tensor) else value for name, value in numbers.items()}
    step = random_step(dtype, summed, **numbers)
    expected = by_formula(step)
    step_by_kernel(step, kernels())
    check(step, expected, dtype)


def test_the_kernel_is_for_single_precision_laid_out_in_order() -> None:
    takes = kernels().takes
    weight = torch.ones(3, 4)
    assert takes(weight, weight, weight, weight)
    assert takes(weight.half(), weight.half(), None, weight)
    assert not takes(weight.double(), weight.double(), None, None)
    assert not takes(weight, torch.ones(4, 3).t(), None, None)
    assert not takes(weight, weight, None, weight.double())


def test_without_a_working_triton_there_are_no_kernels(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def importing(error: Exception) -> Any:
        def raises(name: str) -> Any:
            raise error

        return raises

    monkeypatch.setattr(steps, "import_module", importing(ModuleNotFoundError("No module named 'triton'")))
    assert steps._kernels_for.__wrapped__(DEVICE) is None
    assert not recwarn
    monkeypatch.setattr(steps, "import_module", importing(RuntimeError("Failed to find C compiler.")))
    with pytest.warns(UserWarning, match=f"Triton does not work on {DEVICE}.*slower and right.*find C compiler"):
        assert steps._kernels_for.__wrapped__(DEVICE) is None


def test_the_optimizer_imports_no_triton() -> None:
    script = (
        "import sys, lightning_sparse_rnn.optim; print('triton' in sys.modules, 'pytorch_lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_kernel_compiles_for_gpus_that_are_not_here() -> None:
    kernels()
    script = Path(__file__).parents[1] / "helpers" / "compile_steps.py"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["80", "90"]
