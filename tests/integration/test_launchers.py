"""Sweeps by Hydra's launchers and sweepers: the same runs, summary and exit status; each where it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_runs import small_options

from lightning_sparse_rnn.runs.folder import CONFIG, RESULTS

SIZE = ["trainer.max_epochs=2", "callbacks.progress=null"]
# What the page on sweeps says to type.
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "sweep.md").read_text()
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
SUBMITIT = ["hydra/launcher=submitit_local"]
OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=20", "hydra.sweeper.n_jobs=1"]


def sweep(text: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    small = [*small_options(text, folder / "cache"), *SIZE]
    command = [sys.executable, "-m", "lightning_sparse_rnn.commands.train", "-m", *small, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=500)


def needs(package: str) -> None:
    if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{package}") is None:
        pytest.skip(f"needs {package.removesuffix('_launcher').removesuffix('_sweeper')}: see docs/how-to/sweep.md")


@pytest.mark.parametrize(
    ("package", "launcher"), [("hydra_joblib_launcher", JOBLIB), ("hydra_submitit_launcher", SUBMITIT)]
)
def test_a_launcher_makes_the_runs_and_tells_of_those_that_fail(
    package: str, launcher: list[str], text: Path, tmp_path: Path
) -> None:
    needs(package)
    assert f"sparse-rnn-train -m {' '.join(launcher)} seed=1,2" in PAGE
    done = sweep(text, tmp_path, *launcher, "optimizer.lr=1,-1")
    assert done.returncode == 1, done.stderr
    said = done.stdout + done.stderr
    finished, failed = said.split("These runs have finished:")[1].split("These runs have failed:")
    assert re.search(
        r"^  .*: sparse-rnn-train: Expected `lr` to be a finite number of at least 0, got -1", failed, re.M
    )
    (results,) = tmp_path.glob(f"runs/*/{RESULTS}")
    assert finished.strip() == results.parent.name
    assert "lr: 1\n" in (results.parent / CONFIG).read_text()
    again = sweep(text, tmp_path, *launcher, "optimizer.lr=1")
    assert again.returncode == 0, again.stderr


@pytest.mark.filterwarnings("ignore")
def test_optuna_lowers_the_validation_perplexity(text: Path, tmp_path: Path) -> None:
    needs("hydra_optuna_sweeper")
    values = ["prune_rate=interval(0.3,0.8)", "model.network.dropout=choice(0.1,0.3,0.5)"]
    assert f"{' '.join(OPTUNA)} \\\n    {' '.join(map(repr, values))}" in PAGE
    few = [word.replace("=20", "=3") for word in OPTUNA]
    done = sweep(text, tmp_path, *few, *values)
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "runs" / "optimization_results.yaml").read_text()
    best = float(re.search(r"best_value: (.*)", found)[1])  # type: ignore[index]
    said = [float(value) for value in re.findall(r"validation ([\d.]+)", done.stdout)]
    assert best == pytest.approx(min(said), abs=0.01)
    assert "prune_rate:" in found
