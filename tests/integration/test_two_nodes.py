"""The page's commands for several machines, as two nodes on this one: they train as one process with all columns."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import small_config, small_options

from lightning_sparse_rnn.runs.folder import RESULTS
from lightning_sparse_rnn.runs.training import train

Start = Callable[[int, int], tuple[list[str], dict[str, str]]]
# Dropout is another one in each process.
SMALL = ["trainer.max_epochs=2", "model.network.dropout=0.0"]
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "machines.md").read_text().replace("\\\n", "")


def command_after(start: str) -> list[str]:
    """The words of the page's command that begins with ``start``."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(start))
    return shlex.split(line)


def of_torchrun(rank: int, port: int) -> tuple[list[str], dict[str, str]]:
    _, *words = command_after("torchrun ")
    for name, value in {"RANK": str(rank), "HOST": "127.0.0.1", "29500": str(port)}.items():
        words = [word.replace(f"={name}", f"={value}") for word in words]
    return [sys.executable, "-m", "torch.distributed.run", *words], {}


def of_slurm(rank: int, port: int) -> tuple[list[str], dict[str, str]]:
    """The command that ``srun`` starts, with what it tells each process."""
    _, program, *words = command_after("srun ")
    assert program == "sparse-rnn-train"
    told = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_NODEID": str(rank),
        "SLURM_LOCALID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return [sys.executable, "-m", "lightning_sparse_rnn.commands.train", *words], told


@pytest.mark.slow
@pytest.mark.parametrize("start", [of_torchrun, of_slurm], ids=["torchrun", "slurm"])
def test_two_nodes_train_as_one_process(start: Start, text: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = [*small_options(text, tmp_path / "cache"), *SMALL, "optimizer.nonmono=1"]
    nodes = []
    for rank in (0, 1):
        words, told = start(rank, port)
        words = [word.replace("SHARED_FOLDER", str(tmp_path / "shared")) for word in words]
        nodes.append(
            subprocess.Popen(
                [*words, *own],
                env={**os.environ, **told, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [node.communicate(timeout=300)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert "deprecated" not in "".join(said)
    (path,) = (tmp_path / "shared").rglob(RESULTS)  # one run, written by the first process
    together = json.loads(path.read_text())
    alone = train(small_config(text, tmp_path, *SMALL, "data.batch_size=8"), tmp_path / "alone")
    assert together["live_weights"] == alone["live_weights"]
    assert together["test_ppl"] == pytest.approx(alone["test_ppl"], rel=1e-4)
    assert together["val_ppl"] == pytest.approx(alone["val_ppl"], rel=1e-4)
