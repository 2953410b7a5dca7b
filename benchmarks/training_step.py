"""What sparse training adds to a dense training step, on the 66 M weights of the paper's stacked LSTM.

    python benchmarks/training_step.py [--threads 1] [--steps 5] [--json PATH]

Three Trainers train the same model on the same text, a few steps each, in turn: dense with `torch.optim.SGD`; with the
callbacks and `SNTASGD` before the trigger; and while it averages. Printed are the medians of a step's processor time
(forward, backward, clipping, optimizer, all hooks) and their ratios to dense.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.models import LanguageModel

VOCABULARY, COLUMNS, BPTT = 10_000, 20, 35


class Timer(pl.Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.seconds.append(time.process_time())

    @property
    def step(self) -> float:
        """Median of the steps; the first warms up."""
        return statistics.median(b - a for a, b in zip(self.seconds, self.seconds[1:], strict=False))


class Averages(pl.Callback):
    """Begins to average at once."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.optimizers[0].restart()


def measure(optimizer: str, callbacks: list[pl.Callback], text: list[tuple[Tensor, Tensor]]) -> float:
    torch.manual_seed(0)
    model = LanguageModel(
        network={"_target_": "lightning_sparse_rnn.models.StackedLSTM"},
        vocab_size=VOCABULARY,
        optimizer={"_target_": optimizer, "lr": 1.0, "weight_decay": 1.2e-6},
    )
    timer = Timer()
    trainer = pl.Trainer(
        max_steps=len(text),
        gradient_clip_val=0.25,
        accelerator="cpu",
        callbacks=[*callbacks, timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(text, batch_size=None))  # type: ignore[arg-type]
    return timer.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(given.threads)

    tokens = torch.randint(VOCABULARY, (given.steps + 1, BPTT + 1, COLUMNS))
    text = [(part[:-1], part[1:]) for part in tokens]
    sgd, ours = "torch.optim.SGD", "lightning_sparse_rnn.SNTASGD"
    callbacks = [NonMonotonicAveraging(), SelfishSparseCallback(0.67)]
    seconds = {
        "dense, torch.optim.SGD": measure(sgd, [], text),
        "sparse, SNTASGD before the trigger": measure(ours, list(callbacks), text),
        "sparse, SNTASGD averaging": measure(ours, [*callbacks, Averages()], text),
    }
    dense = seconds["dense, torch.optim.SGD"]
    for name, step in seconds.items():
        print(f"{name:38} {step:7.3f} s   {step / dense:5.3f} x dense")
    if given.json:
        machine = {"processor": platform.processor(), "threads": given.threads, "torch": torch.__version__}
        given.json.write_text(json.dumps({"seconds": seconds, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
