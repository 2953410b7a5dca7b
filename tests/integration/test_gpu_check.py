"""The check that waits for a GPU runs, and says what it found and what is open."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


@pytest.mark.parametrize("name", ["dropout", "steps", "precision", "networks", "tests"])
def test_parts_run_at_toy_size(name: str) -> None:
    from benchmarks.gpu_parts import PARTS, Place

    found = PARTS[name][0](Place(dry=True))
    assert json.loads(json.dumps(found)) == found
    if name == "dropout":
        assert found["ours_fresh"]
    elif name == "steps":
        assert found["over_dense"]["dense loop, nn.LSTM, fused SGD"] == 1.0
        assert len(found["milliseconds"]) == 7
    elif name == "precision":
        assert max(found["cuDNN, high"].values()) < 1e-6  # a CPU rounds to TF32 nowhere
    elif name == "networks":
        assert set(found) == {"stacked", "gru", "highway", "ordered", "awd", "mixture"}
    else:
        assert found["rc"] == 0


def test_the_command_writes_what_there_is_and_goes_on_after_a_part_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    # In a second no part is done; the limit is below what the command itself takes for too little.
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--dry", "--only", "dropout", "--json", str(path)]
    ended = subprocess.run([*command, "--seconds", "1"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(path.read_text())["parts"] == {"dropout": {"error": "no time was left"}}
    assert "figures say nothing of a GPU" in ended.stdout


def test_a_part_that_takes_too_long_or_breaks_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_check

    given = Namespace(dry=True, root=None)

    def late(*_: Any, timeout: float, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("check", timeout, output=b"half of it")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", late)
        assert gpu_check.run_part("steps", given, 7.0) == {"error": "took more than 7 s", "said": "half of it"}
        broken = subprocess.CompletedProcess([], 1, stdout="before", stderr="CUDA error")
        patch.setattr(subprocess, "run", lambda *_, **__: broken)
        assert gpu_check.run_part("steps", given, 7.0) == {"error": "CUDA error", "said": "before"}


def test_verdicts() -> None:
    from benchmarks.gpu_check import verdicts

    nothing = verdicts({})
    assert sum("open" in line for line in nothing) == 10
    said = verdicts(
        {
            "dropout": {"ours_fresh": True, "cudnn_fresh": False},
            "steps": {
                "milliseconds": {"recorded, cuDNN": 5.1, "recorded, fused cells": 3.0, "best recipe, cuDNN": 4.2},
                "over_dense": {"recorded, cuDNN": 0.9, "recorded, fused cells": 0.8},
            },
            "epochs": {
                "fused cells": {"seconds": [9.0, 7.5, 7.1]},
                "cuDNN": {"error": "x"},
                "compact checkpoints": {"seconds": [9.0, 7.665]},
            },
            "networks": {
                "highway": {"recorded_over_before": 1.1, "evaluation_over_training": 0.4},
                "ordered": {"recorded_over_before": 0.9, "evaluation_over_training": 0.3},
            },
            "tests": {"rc": 0},
        }
    )
    assert said == [
        "a training step, ms: 3, asked for at most 5.0 (reached)",
        "ours over a dense loop: 0.8, asked for at most 0.75 (NOT reached)",
        "an epoch, s: 7.3, asked for at most 7.0 (NOT reached)",
        "RHN and ON-LSTM over their recurrences recorded alone: 1.1, asked for at most 1.0 (NOT reached)",
        "evaluation over training, the largest: 0.4, asked for at most 0.5 (reached)",
        "faster at this size: fused cells; fused cells are chosen by `model.network.fused_cells=true`",
        "a training step of the best recipe, ms: 4.2",
        "an epoch with compact checkpoints over one with dense ones: 1.05",
        "our dropout is drawn: anew at each replay",
        "cuDNN's dropout between layers is drawn: NOT anew at each replay",
        "tests: pass",
    ]
