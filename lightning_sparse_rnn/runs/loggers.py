"""The experiment trackers of a run: what they get at its beginning and at its end."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from lightning_sparse_rnn.utilities.making import make

__all__ = ["ResumableCSVLogger", "begin", "finish", "hyperparameters", "log_end", "make_loggers"]


def make_loggers(config: DictConfig) -> list[Logger]:
    """Make the loggers of ``config.logger``: one, several by names of their own, or none.

    Raises:
        ModuleNotFoundError: TensorBoard is asked for and not installed.
    """
    given = config.logger
    if not given:
        return []
    try:
        return [make(given)] if "_target_" in given else [make(each) for each in given.values() if each]
    except InstantiationException as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and "TensorBoardLogger" in str(given):
            raise ModuleNotFoundError(
                "TensorBoardLogger needs tensorboard. Install it with: pip install 'lightning-sparse-rnn[tensorboard]'"
            ) from error
        raise


def hyperparameters(config: DictConfig) -> dict[str, Any]:
    """Return what tells a run from others and neither its model's nor its data's hyperparameters hold."""
    chosen = config.get("chosen") or {}
    method = config.method
    known = {
        "method": chosen.get("method") or ("dense" if "_target_" not in method else method["_target_"].split(".")[-1]),
        "experiment": chosen.get("experiment"),
        "sparsity": method.get("sparsity", 0.0),
        "prune_rate": method.get("prune_rate"),
        "run_seed": config.seed,
    }
    return {name: value for name, value in known.items() if value is not None}


def begin(logger: Logger, told: Mapping[str, Any]) -> None:
    """Tell a logger what run it is, with which trackers begin theirs.

    Args:
        logger: one of the run's.
        told: the run's hyperparameters.

    Raises:
        ConnectionError: the tracker did not begin, for want of an account or a network for instance.
    """
    try:
        logger.log_hyperparams(dict(told))
    except Exception as error:  # each tracker has errors of its own
        raise ConnectionError(
            f"{type(logger).__name__} did not begin. Expected a tracker that can be reached, or logger=none; "
            f"it says: {error}"
        ) from error


def log_end(trainer: pl.Trainer, results: Mapping[str, Any], picture: Any) -> None:
    """Give the run's loggers what is only known when it has ended.

    Args:
        trainer: the run's.
        results: what is in ``results.json``.
        picture: a figure of matplotlib, or ``None``.
    """
    for logger in trainer.loggers:
        if results["accounting"] is not None:
            costs = {f"accounting/{name}": value for name, value in results["accounting"].items()}
            logger.log_metrics(costs, step=trainer.global_step)
        if picture is not None:
            for kind, show in _SHOWN_BY.items():
                if isinstance(logger, kind):
                    show(logger, picture, trainer.global_step)


# How trackers take a picture; what logs to a file stands beside the run's own.
_SHOWN_BY: dict[type[Logger], Callable[[Any, Any, int], object]] = {
    TensorBoardLogger: lambda logger, picture, step: logger.experiment.add_figure("run", picture, step),
    WandbLogger: lambda logger, picture, step: logger.log_image("run", [picture]),
    MLFlowLogger: lambda logger, picture, step: logger.experiment.log_figure(logger.run_id, picture, "run.png"),
}


def finish(loggers: list[Logger], status: str) -> None:
    """Close the loggers of a run, so that the next run of this process begins a run of its own with its tracker.

    Args:
        loggers: the run's.
        status: ``"success"`` or ``"failed"``.
    """
    for logger in loggers:
        logger.finalize(status)
        # Lightning leaves a run of Weights & Biases open, and the next logger would go on with it.
        end = getattr(getattr(logger, "experiment", None), "finish", None)
        if callable(end):
            end()


class ResumableCSVLogger(CSVLogger):
    """A ``CSVLogger`` that keeps what an earlier session of the run has logged, as far as the run goes on from it.

    Lightning's own begins an empty file. Rows of steps that an interruption lost are dropped: they are logged again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        self._earlier: list[dict[str, str]] = []
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self._earlier = list(csv.DictReader(file))

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log metrics, after those of earlier sessions."""
        if self._earlier and step is not None:
            earlier, self._earlier = self._earlier, []
            kept = [row for row in earlier if row.get("step", "").isdigit() and int(row["step"]) < step]
            self.experiment.metrics = [{name: value for name, value in row.items() if value} for row in kept]
            self.save()
        super().log_metrics(metrics, step)
