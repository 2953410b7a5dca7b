"""The rule of one's own in the documentation, copied from there and named by its import path."""

import re
from pathlib import Path

import pytest
from small_runs import EPOCHS, small_config, table

from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.training import train

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_documented_rule_trains(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 15
    (tmp_path / "my_rules.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    train(small_config(text, tmp_path, "method.pruning=my_rules.undecided"), tmp_path / "run")
    rows = [row for row in table(tmp_path / "run" / "topology.csv") if row["update"] == str(EPOCHS - 1)]
    assert sum(int(row["pruned"]) for row in rows) == sum(int(row["regrown"]) for row in rows) > 0


def test_every_method_and_sweep_is_documented() -> None:
    documented = DOCUMENT.read_text()
    for path in (CONFIG_DIR / "method").glob("*.yaml"):
        assert f"| `{path.stem}`" in documented
    for path in (CONFIG_DIR / "sweep").glob("*.yaml"):
        assert f"sweep={path.stem} " in documented
