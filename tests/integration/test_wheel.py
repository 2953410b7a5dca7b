"""The installed package: built as a wheel and run away from the checkout, configs and all."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the unpacked wheel and nothing else."""
    built = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(built)]
    subprocess.run([*build, str(ROOT)], check=True)
    (wheel,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, folder: Path, module: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"lightning_sparse_rnn.commands.{module}", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_trains_sweeps_tests_generates_and_reports(installed: Path, tmp_path: Path) -> None:
    small = [
        "model.network.embedding_size=8",
        "model.network.hidden_size=8",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        f"data.cache_dir={tmp_path / 'cache'}",
    ]
    out = run(installed, tmp_path, "train", "-m", "method=dense,selfish", "seed=2", *small)
    assert out.count("an add-one unigram model") == 2
    runs = {json.loads(path.read_text())["sparsity"]: path.parent for path in (tmp_path / "runs").rglob("results.json")}
    assert sorted(round(sparsity, 2) for sparsity in runs) == [0.0, 0.67]
    folder = str(runs[max(runs)])
    results = json.loads((Path(folder) / "results.json").read_text())
    assert json.loads(run(installed, tmp_path, "evaluate", folder))["test_ppl"] == results["test_ppl"]
    assert len(run(installed, tmp_path, "generate", folder, "--tokens", "5").split()) >= 4
    assert "2 runs, 2 finished" in run(installed, tmp_path, "report", "runs", "--output", "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")  # from the template in the wheel
    assert page.count("<table>") == page.count("</table>") == len(list((tmp_path / "out").glob("*.csv"))) >= 5
