"""The examples that need no corpus, cut short."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "cuts", "said"),
    [
        (
            "any_trainer",
            {"max_epochs=8": "max_epochs=2", "waves(2000, 0), 50": "waves(200, 0), 50"},
            "at sparsity 90.0%",
        ),
        ("bare_loop", {"COLUMNS = 16, 50": "COLUMNS = 2, 500"}, "4979 of 49792 weights live"),
    ],
)
def test_an_example_runs(name: str, cuts: dict[str, str], said: str, tmp_path: Path) -> None:
    code = (EXAMPLES / f"{name}.py").read_text()
    for long, short in cuts.items():
        assert long in code
        code = code.replace(long, short)
    for path in EXAMPLES.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / f"{name}.py").write_text(code)
    done = subprocess.run([sys.executable, f"{name}.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
