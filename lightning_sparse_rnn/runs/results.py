"""What is known of a run when it has ended."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_sparse_rnn.callbacks.averaging import NonMonotonicAveraging
from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.data import unigram_perplexity
from lightning_sparse_rnn.runs.record import RunRecord
from lightning_sparse_rnn.sparsity import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.accounting import account, uses_per_token

__all__ = ["log_end", "results_of", "summary", "versions"]


def results_of(
    config: DictConfig,
    data: Any,
    model: pl.LightningModule,
    trainer: pl.Trainer,
    record: RunRecord,
    best: ModelCheckpoint,
    sparsity: SelfishSparseCallback | None,
    averaging: NonMonotonicAveraging | None,
) -> dict[str, Any]:
    total = sum(parameter.numel() for parameter in sparsifiable_parameters(model).values())
    live = total if sparsity is None else total - sparsity.topology.total_weights + sparsity.topology.live_weights
    assert best.best_model_score is not None
    return {
        "test_ppl": float(trainer.callback_metrics["test_ppl"]),
        "val_ppl": float(best.best_model_score.exp()),
        "unigram_ppl": unigram_perplexity(data.corpus.train, data.corpus.test, data.vocab_size),
        "sparsity": 1.0 - live / total,
        "live_weights": live,
        "total_weights": total,
        "epochs": len(record.rows),
        "accounting": None if sparsity is None else _account(model, sparsity, trainer),
        "averaging_began_epoch": None if averaging is None else averaging.began_epoch,
        "seconds": round(record.seconds, 1),
        "seed": config.seed,
    }


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("pytorch-lightning", "lightning-sparse-rnn")}
    return {"python": platform.python_version(), "torch": torch.__version__, **packages}


def _account(model: pl.LightningModule, sparsity: SelfishSparseCallback, trainer: pl.Trainer) -> dict[str, float]:
    topology = sparsity.topology
    uses = uses_per_token(model)
    by_name = {name: uses[parameter] for name, parameter in topology.parameters.items()}
    needs = topology.needs
    gradients = "always" if "momenta" in needs else "updates" if "gradients" in needs else "never"
    return account(sparsity.updates, topology.gate_sizes, by_name, trainer.global_step, gradients)


def summary(results: dict[str, Any]) -> str:
    began = results["averaging_began_epoch"]
    return (
        f"test perplexity {results['test_ppl']:.2f}, validation {results['val_ppl']:.2f} "
        f"(an add-one unigram model: {results['unigram_ppl']:.2f})\n"
        f"{results['live_weights']:,} of {results['total_weights']:,} weights live, {results['epochs']} epochs in "
        f"{results['seconds']:.0f} s, averaging " + ("never began" if began is None else f"began in epoch {began}")
    )


def log_end(trainer: pl.Trainer, picture: Figure, results: dict[str, Any]) -> None:
    """Give the run's loggers what is only known when it has ended."""
    for logger in trainer.loggers:
        if results["accounting"] is not None:
            costs = {f"accounting/{name}": value for name, value in results["accounting"].items()}
            logger.log_metrics(costs, step=trainer.global_step)
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure("run", picture, trainer.global_step)
        logger.finalize("success")
