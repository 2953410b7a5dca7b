"""The package without its extras: what works, and which extra the rest asks for.

Elsewhere than in an environment without extras, Python gets a folder of links to all that is installed but those.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXTRAS = ("matplotlib", "scipy", "pooch", "tensorboard")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules to import, without those of the extras."""
    folder = tmp_path_factory.mktemp("installed")
    for path in Path(torch.__file__).parents[1].iterdir():
        if not path.name.lower().startswith(EXTRAS) and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return folder


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(installed)]),
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def run(installed: Path, folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(installed, folder, "-m", f"lightning_sparse_rnn.commands.{module}", *arguments)


@pytest.fixture(scope="module")
def trained(installed: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run in ``runs/default``, trained without any extra, and what the command said."""
    folder = tmp_path_factory.mktemp("bare")
    small = ["model.network.embedding_size=8", "model.network.hidden_size=8", "trainer.max_epochs=2"]
    options = ["data=folder", f"data.root={text}", "data.bptt=10", "data.eval_batch_size=2", "trainer.accelerator=cpu"]
    done = run(
        installed, folder, "train", *small, *options, "hydra.run.dir=runs/default", "trainer.enable_progress_bar=false"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_run_trains_on_text_of_ones_own_and_leaves_out_its_picture(trained: tuple[Path, str]) -> None:
    folder, said = trained
    assert "The picture run.png needs matplotlib. Install it with: pip install 'lightning-sparse-rnn[report]'\n" in said
    left = folder / "runs" / "default"
    assert not (left / "run.png").exists()
    assert json.loads((left / "results.json").read_text())["epochs"] == 2
    assert (folder / "cache" / "lightning_sparse_rnn").is_dir() == sys.platform.startswith("linux")


def test_its_run_is_tested_continued_in_words_and_exported(installed: Path, trained: tuple[Path, str]) -> None:
    folder, _ = trained
    results = json.loads((folder / "runs" / "default" / "results.json").read_text())
    assert json.loads(run(installed, folder, "evaluate", "runs/default").stdout)["test_ppl"] == results["test_ppl"]
    assert len(run(installed, folder, "generate", "runs/default", "--tokens", "9").stdout.split()) >= 4
    assert run(installed, folder, "export", "runs/default").returncode == 0
    assert (folder / "runs" / "default" / "weights.sparse.pt").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("report", "runs"), "pip install 'lightning-sparse-rnn[report]'"),
        (("train", "data=ptb", "data.cache_dir=new"), "pip install 'lightning-sparse-rnn[data]'"),
        (("train", "logger=tensorboard", "seed=2"), "pip install 'lightning-sparse-rnn[tensorboard]'"),
    ],
)
def test_what_misses_an_extra_says_which(
    installed: Path, trained: tuple[Path, str], command: tuple[str, ...], expected: str
) -> None:
    done = run(installed, trained[0], *command)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_the_public_names_need_no_extra(installed: Path, tmp_path: Path) -> None:
    code = "from lightning_sparse_rnn import *; from lightning_sparse_rnn.models import *; "
    code += "from lightning_sparse_rnn.data import *; print(SNTASGD, SelfishSparseCallback, LSTM, TextDataModule)"
    done = python(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "SNTASGD" in done.stdout
