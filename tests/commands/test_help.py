"""The help of every command comes before anything is imported that takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

COMMANDS = ("train", "evaluate", "generate", "export", "report")
HEAVY = ("torch", "numpy", "pytorch_lightning", "matplotlib", "scipy")
SHOW = """
import sys
from lightning_sparse_rnn.commands.{command} import main
sys.argv = ["command", "--help"]
try:
    main()
finally:
    print([name for name in {heavy} if name in sys.modules])
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = SHOW.format(command=command, heavy=HEAVY)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "sparse-rnn-" in said
    assert said.splitlines()[-1] == "[]"


def test_the_default_that_the_help_of_the_report_names() -> None:
    from lightning_sparse_rnn.report.files import SECONDS

    code = SHOW.format(command="report", heavy=())
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"(default: {SECONDS:g})" in " ".join(said.split())


def test_the_config_is_shown_with_its_values_resolved(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_sparse_rnn.commands.train", "--cfg", "job", "--resolve", "sparsity=0.5"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    config = yaml.safe_load(said)
    assert config["method"]["sparsity"] == 0.5
    assert config["chosen"]["method"] == "selfish"
