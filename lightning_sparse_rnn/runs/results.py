"""What is known of a run when it has ended."""

from __future__ import annotations

import math
import platform
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from lightning_sparse_rnn import __version__
from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.data import unigram_perplexity
from lightning_sparse_rnn.sparsity import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.accounting import account, uses_per_token
from lightning_sparse_rnn.utilities.counting import counted, ordinal
from lightning_sparse_rnn.utilities.processor import computed_on

if TYPE_CHECKING:
    from lightning_sparse_rnn.runs.parts import Parts

__all__ = ["results_of", "summary", "unigram_of", "versions"]


# Logged where they say something: without words that training never saw, and in bits per character.
_OF_SOME_TEXTS = ("test_ppl_known", "test_bpc")


def results_of(parts: Parts, seed: int) -> dict[str, Any]:
    """Return what goes into ``results.json``, versions apart."""
    total = sum(parameter.numel() for parameter in sparsifiable_parameters(parts.model).values())
    sparsity, averaging, best = parts.sparsity, parts.averaging, parts.best.best_model_score
    live = total if sparsity is None else total - sparsity.topology.total_weights + sparsity.topology.live_weights
    assert best is not None
    metrics = parts.trainer.callback_metrics
    return {
        "test_ppl": _test_perplexity(parts.trainer),
        **{name: float(metrics[name]) for name in _OF_SOME_TEXTS if name in metrics},
        "val_ppl": float(best.exp()),
        "unigram_ppl": unigram_of(parts.data),
        "sparsity": 1.0 - live / total,
        "live_weights": live,
        "total_weights": total,
        "epochs": len(parts.record.rows),
        "accounting": None if sparsity is None else _account(parts.model, sparsity, parts.trainer),
        "averaging_began_epoch": None if averaging is None else averaging.began_epoch,
        "seconds": round(parts.record.seconds, 1),
        "seed": seed,
        "machine": computed_on(parts.trainer.strategy.root_device),
    }


def versions() -> dict[str, str]:
    """Return the versions of what the run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch-lightning": pl.__version__,
        "lightning-sparse-rnn": __version__,
    }


def summary(results: dict[str, Any]) -> str:
    """Return two lines that say how the run went."""
    began, unigram = results["averaging_began_epoch"], results["unigram_ppl"]
    beside = "" if unigram is None else f" (an add-one unigram model: {unigram:.2f})"
    tokens = "characters" if "test_bpc" in results else "words"  # of pieces of words none is unknown
    for name, called in (("test_ppl_known", f"without unknown {tokens}"), ("test_bpc", "bits per character")):
        if name in results:
            beside += f", {called} {results[name]:.2f}"
    return (
        f"test perplexity {results['test_ppl']:.2f}, validation {results['val_ppl']:.2f}{beside}\n"
        f"{results['live_weights']:,} of {results['total_weights']:,} weights live, "
        f"{counted(results['epochs'], 'epoch')} in {results['seconds']:.0f} s, averaging "
        + ("never began" if began is None else f"began in the {ordinal(began + 1)}")
    )


def _test_perplexity(trainer: pl.Trainer) -> float:
    metrics = trainer.callback_metrics
    if "test_ppl" in metrics:
        return float(metrics["test_ppl"])
    if "test_loss" in metrics:
        return math.exp(float(metrics["test_loss"]))
    raise ValueError(
        f"Expected the model to log `test_ppl` or `test_loss` (nats per token) in its test, got "
        f"{', '.join(sorted(metrics)) or 'nothing'}."
    )


def unigram_of(data: Any) -> float | None:
    """Return the perplexity of word frequencies alone; ``None`` where the data module shows no text in ids."""
    corpus = getattr(data, "corpus", None)
    return None if corpus is None else unigram_perplexity(corpus.train, corpus.test, data.vocab_size)


def _account(model: pl.LightningModule, sparsity: SelfishSparseCallback, trainer: pl.Trainer) -> dict[str, float]:
    topology = sparsity.topology
    uses = uses_per_token(model)
    by_name = {name: uses[parameter] for name, parameter in topology.parameters.items()}
    needs = topology.needs
    gradients = "always" if "momenta" in needs else "updates" if "gradients" in needs else "never"
    return account(sparsity.updates, topology.gate_sizes, by_name, trainer.global_step, gradients)
