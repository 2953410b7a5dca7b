"""What TensorBoard gets: the scalars of the run's own tables, and its picture."""

import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import EPOCHS, small_config, table

from lightning_sparse_rnn.runs.training import train

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")


def events(folder: Path) -> tuple[dict[str, list[float]], set[str]]:
    """Scalars by name, in order, and the names of the pictures, over all files of the run."""
    scalars: dict[str, list[float]] = {}
    pictures: set[str] = set()
    for path in sorted(folder.rglob("*tfevents*"), key=lambda path: path.stat().st_mtime):
        found: Any = reader.EventAccumulator(str(path)).Reload()
        for name in found.Tags()["scalars"]:
            scalars.setdefault(name, []).extend(event.value for event in found.Scalars(name))
        pictures |= set(found.Tags()["images"])
    return scalars, pictures


def logged(text: Path, tmp_path: Path, *overrides: str) -> tuple[dict[str, list[float]], set[str], dict[str, Any]]:
    config = small_config(text, tmp_path, "logger=tensorboard", f"logger.save_dir={tmp_path / 'run'}", *overrides)
    results = train(config, tmp_path / "run")
    return *events(tmp_path / "run" / "tensorboard"), results


def test_a_sparse_run(text: Path, tmp_path: Path) -> None:
    scalars, pictures, results = logged(text, tmp_path)
    metrics = table(tmp_path / "run" / "metrics.csv")
    for name in ("train_ppl", "val_ppl", "lr", "averaging"):
        assert scalars[name] == pytest.approx([float(row[name]) for row in metrics]), name
    assert scalars["sparsity/overall"] == pytest.approx([float(row["sparsity"]) for row in metrics])
    topology = table(tmp_path / "run" / "topology.csv")
    for tensor, gate in {(row["tensor"], row["gate"]) for row in topology}:
        own = [row for row in topology if (row["tensor"], row["gate"]) == (tensor, gate)]
        expected = [float(row["density"]) for row in own if row["update"] != "0"]
        assert scalars[f"density/{tensor}/{gate}"] == pytest.approx(expected)
        rates = [float(row["rate"]) for row in own if row["update"] != "0"]
        assert scalars["sparsity/prune_rate"] == pytest.approx(rates)
    assert len(rates) == EPOCHS - 1
    assert scalars["test_ppl"] == pytest.approx([results["test_ppl"]])
    for name, value in results["accounting"].items():
        assert scalars[f"accounting/{name}"] == pytest.approx([value])
        assert math.isfinite(value)
    assert pictures == {"run"}


def test_a_dense_run(text: Path, tmp_path: Path) -> None:
    scalars, pictures, _ = logged(text, tmp_path, "method=dense", "trainer.max_epochs=1")
    assert scalars["sparsity/overall"] == [0.0]
    assert not any(name.startswith(("density/", "sparsity/prune_rate", "accounting/")) for name in scalars)
    assert pictures == {"run"}
