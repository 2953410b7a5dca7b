"""What each tracker gets of a run: hyperparameters, scalars and the picture; each where its package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from small_runs import small_config, table

from lightning_sparse_rnn.runs.loggers import make_loggers
from lightning_sparse_rnn.runs.training import train

# Other people's packages warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore")

HYPERPARAMETERS = {"method": "selfish", "sparsity": 0.8, "prune_rate": 0.4, "run_seed": 1}
SCALARS = {"val_ppl", "test_ppl", "sparsity/overall", "sparsity/prune_rate", "accounting/inference_flops"}
GATE = "density/network.layers.weight_hh_l0/forget"


def config_of(logger: str, text: Path, folder: Path, *overrides: str) -> DictConfig:
    """A small run with one of the configs of `conf/logger`, as if a command had composed it in `folder`."""
    own = {
        "csv": [f"logger.save_dir={folder}"],
        "tensorboard": [f"logger.save_dir={folder}"],
        "wandb": [f"logger.save_dir={folder}", "logger.name=run", "logger.offline=true"],
        "mlflow": ["logger.run_name=run", f"output={folder}"],
    }[logger]
    shape = ["trainer.max_epochs=2", "sparsity=0.8", "prune_rate=0.4"]
    config = small_config(text, folder, f"logger={logger}", *own, *shape, *overrides)
    config.chosen = {"method": "selfish"}
    return config


def tracked(logger: str, text: Path, folder: Path) -> dict[str, float]:
    """Train, and return the validation perplexities by step, and the test perplexity, as the run itself has them."""
    results = train(config_of(logger, text, folder), folder / "run")
    assert (folder / "run" / "run.png").exists()
    rows = table(folder / "run" / "metrics.csv")
    return {"first": float(rows[0]["val_ppl"]), "last": float(rows[1]["val_ppl"]), "test": results["test_ppl"]}


def test_csv(text: Path, tmp_path: Path) -> None:
    expected = tracked("csv", text, tmp_path)
    rows = table(tmp_path / "csv" / "metrics.csv")
    assert {*SCALARS, GATE} <= rows[0].keys()
    assert [float(row["val_ppl"]) for row in rows if row["val_ppl"]] == pytest.approx(
        [expected["first"], expected["last"]]
    )
    written = (tmp_path / "csv" / "hparams.yaml").read_text()
    assert all(f"{name}: {value}" in written for name, value in HYPERPARAMETERS.items())


def test_tensorboard(text: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    expected = tracked("tensorboard", text, tmp_path)
    found: Any = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = found.Tags()
    assert {*SCALARS, GATE} <= set(tags["scalars"])
    assert tags["images"] == ["run"]
    values = [event.value for event in found.Scalars("val_ppl")]
    assert values == pytest.approx([expected["first"], expected["last"]])
    written = (tmp_path / "tensorboard" / "hparams.yaml").read_text()
    assert all(f"{name}: {value}" in written for name, value in HYPERPARAMETERS.items())


def test_wandb_without_a_network(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    expected = tracked("wandb", text, tmp_path)
    wandb.teardown()  # as at the end of a process; until then it may keep records back
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (record,) = run.glob("*.wandb")
    content = record.read_bytes()  # a log of records, names and values in it as text
    for name in (*HYPERPARAMETERS, *SCALARS, GATE):
        assert name.encode() in content, name
    assert f"{expected['last']:.3f}"[:-1].encode() in content
    (picture,) = (run / "files" / "media" / "images").glob("run_*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mlflow_in_a_database(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    monkeypatch.chdir(tmp_path)
    expected = tracked("mlflow", text, tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("lightning-sparse-rnn")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert {name: run.data.params[name] for name in HYPERPARAMETERS} == {
        name: str(value) for name, value in HYPERPARAMETERS.items()
    }
    assert {*SCALARS, GATE} <= run.data.metrics.keys()
    history = client.get_metric_history(run.info.run_id, "val_ppl")
    assert [metric.value for metric in history] == pytest.approx([expected["first"], expected["last"]])
    assert run.data.metrics["test_ppl"] == pytest.approx(expected["test"])
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["run.png"]
    assert sorted(path.name for path in tmp_path.iterdir() if "ml" in path.name) == ["mlflow.db", "mlruns"]


def test_several_at_once(text: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    config = config_of("csv", text, tmp_path)
    both = {"one": config.logger, "two": config_of("tensorboard", text, tmp_path).logger}
    config.logger = both
    assert [type(logger).__mro__[1 if index == 0 else 0] for index, logger in enumerate(make_loggers(config))] == [
        CSVLogger,
        TensorBoardLogger,
    ]
    train(config, tmp_path / "run")
    assert "val_ppl" in table(tmp_path / "csv" / "metrics.csv")[0]
    assert list((tmp_path / "tensorboard").glob("*tfevents*"))
