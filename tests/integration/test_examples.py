"""The examples that need no corpus, cut short; those with other people's modules run where these are installed."""

import ast
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, cuts: dict[str, str], folder: Path, *arguments: str) -> str:
    """Run an example with pieces of its code replaced, and return what it printed."""
    code = (EXAMPLES / f"{name}.py").read_text()
    for long, short in cuts.items():
        assert long in code
        code = code.replace(long, short)
    for path in EXAMPLES.glob("*.py"):
        (folder / path.name).write_text(path.read_text())
    (folder / f"{name}.py").write_text(code)
    command = [sys.executable, f"{name}.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "cuts", "said"),
    [
        (
            "any_trainer",
            {"max_epochs=8": "max_epochs=2", "waves(2000, 0), 50": "waves(200, 0), 50"},
            "at sparsity 90.0%",
        ),
        (
            "streaming_gru",
            {"max_epochs=3": "max_epochs=1", "spoken(800, 0)": "spoken(50, 0)", "spoken(40, 1)": "spoken(2, 1)"},
            "compressed: accuracy",
        ),
        ("bare_loop", {"COLUMNS = 16, 50": "COLUMNS = 2, 500"}, "4979 of 49792 weights live"),
    ],
)
def test_an_example_runs(name: str, cuts: dict[str, str], said: str, tmp_path: Path) -> None:
    assert said in run(name, cuts, tmp_path)


@pytest.mark.parametrize(
    ("name", "needs", "package"),
    [
        ("with_snntorch", "snntorch", "snntorch"),
        ("with_ncps", "ncps", "ncps"),
        ("with_mingru", "minGRU_pytorch", "minGRU-pytorch"),
        ("with_xlstm", "xlstm", "xlstm"),
        ("with_pytorch_forecasting", "pytorch_forecasting", "pytorch-forecasting"),
    ],
)
def test_an_example_whose_package_is_missing_says_so_in_one_line(
    name: str, needs: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(SystemExit) as raised:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert re.fullmatch(f".+\\. This example needs it: pip install {package}", str(raised.value))


@pytest.mark.parametrize(
    ("name", "needs", "arguments", "recurrent"),
    [
        ("with_snntorch", "snntorch", ["RLeaky"], "rnn.recurrent.weight"),
        ("with_snntorch", "snntorch", ["SLSTM"], "rnn.lstm_cell.weight_hh"),
        ("with_ncps", "ncps", [], "rnn.rnn_cell.ff1.weight"),
        ("with_mingru", "minGRU_pytorch", [], "rnn.1.to_hidden_and_gate.weight"),
        ("with_xlstm", "xlstm", [], "rnn.slstm_cell._recurrent_kernel_"),
        ("with_pytorch_forecasting", "pytorch_forecasting", [], "rnn.weight_hh_l1"),
    ],
)
def test_modules_of_other_packages_train_sparse(
    name: str, needs: str, arguments: list[str], recurrent: str, tmp_path: Path
) -> None:
    if find_spec(needs) is None:
        pytest.skip(f"needs {needs}")
    code = (EXAMPLES / f"{name}.py").read_text()
    assert len(code.splitlines()) < 60
    epochs = re.search(r"max_epochs=\d", code)
    assert epochs
    printed = run(name, {epochs[0]: "max_epochs=2, limit_train_batches=2"}, tmp_path, *arguments)
    assert "at sparsity 80.0%" in printed
    gates = ast.literal_eval(printed.splitlines()[-1])[recurrent]
    # Not more gates than the layer has, and weights in each: the mean is right where they are of one size.
    assert sum(gates.values()) / len(gates) == pytest.approx(0.2, abs=0.002)
