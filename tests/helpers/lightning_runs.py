"""Toy runs for the tests of the callbacks: small modules and texts, and all that a run's future depends on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse_rnn import SNTASGD, NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel

# What Lightning says of toys: few workers, few batches, folders that are not empty.
QUIET = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*`weights_only` was not set"),
]

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sntasgd": lambda parameters: SNTASGD(parameters, lr=0.5, weight_decay=1e-3, nonmono=1),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


class ToyParts:
    """What is in a toy, whichever Lightning its LightningModule comes from: an LSTM with dropout and a linear layer.

    It logs ``val_loss``, and ``rising``, under which a trigger with ``nonmono=1`` fires in the third validation.
    """

    def __init__(self, optimizer: str = "sntasgd") -> None:
        super().__init__()
        self.optimizer = optimizer
        self.lstm = nn.LSTM(3, 6, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.linear = nn.Linear(6, 2)

    def loss(self, batch: Sequence[Tensor]) -> Tensor:
        hidden = self.dropout(self.lstm(batch[0])[0])
        return nn.functional.mse_loss(self.linear(hidden[:, -1]), batch[1])

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))
        self.log("rising", float(self.trainer.global_step))

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](self.parameters())


class Toy(ToyParts, pl.LightningModule):
    """The toy for ``pytorch_lightning``."""


def toy(optimizer: str = "sntasgd", seed: int = 1) -> Toy:
    """A toy with weights of its own."""
    torch.manual_seed(seed)
    return Toy(optimizer)


def loaders() -> tuple[DataLoader, DataLoader]:
    """Five shuffled batches to train on and two to validate on."""
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(40, 5, 3, generator=generator),
        torch.randn(40, 2, generator=generator),
    )
    return DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=20)


def language_model(optimizer: str = "sntasgd", seed: int = 1) -> LanguageModel:
    """A tiny language model with dropout."""
    torch.manual_seed(seed)
    network = {
        "_target_": "lightning_sparse_rnn.models.StackedLSTM",
        "embedding_size": 5,
        "hidden_size": 6,
        "num_layers": 2,
        "dropout": 0.2,
    }
    optimizers = {
        "sntasgd": {"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 1.0, "weight_decay": 1e-4, "nonmono": 1},
        "adam": {"_target_": "torch.optim.Adam", "lr": 0.01},
    }
    return LanguageModel(network, vocab_size=22, optimizer=optimizers[optimizer])


def text(folder: Path, **options: Any) -> TextDataModule:
    """A text of twenty words: nine batches to train on with fixed lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for part, lines in (("train", 40), ("valid", 10), ("test", 10)):
        words = torch.randint(20, (lines, 4), generator=generator).tolist()
        if part == "train":
            words[0:5] = [list(range(at, at + 4)) for at in range(0, 20, 4)]
        (folder / f"{part}.txt").write_text("".join(" ".join(f"w{word}" for word in line) + "\n" for line in words))
    return TextDataModule(
        "folder",
        root=str(folder),
        cache_dir=str(folder),
        **{"batch_size": 4, "eval_batch_size": 2, "bptt": 5, **options},
    )


class Rising(pl.Callback):
    """Logs ``rising`` for a module that does not, so that a trigger fires early."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("rising", float(trainer.global_step))


class Record(pl.Callback):
    """Writes down every training loss and every validation metric, as (step, name, value)."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, float]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.rows.append((trainer.global_step, "loss", float(outputs["loss"])))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            names = ("val_loss", "rising")
            self.rows += [(trainer.global_step, name, float(trainer.callback_metrics[name])) for name in names]


def sparse_callbacks(optimizer: str = "sntasgd", **options: Any) -> list[pl.Callback]:
    """Both callbacks, or the one that goes with an optimizer that does not average."""
    sparse = SelfishSparseCallback(sparsity=0.5, prune_rate=0.5, **options)
    return [sparse, NonMonotonicAveraging("rising")] if optimizer == "sntasgd" else [sparse]


def make_trainer(folder: Path, callbacks: Sequence[Any], **options: Any) -> pl.Trainer:
    """A silent Trainer that saves only what ``callbacks`` save."""
    return pl.Trainer(
        **{
            "default_root_dir": folder,
            "accelerator": "cpu",
            "max_epochs": 6,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
            **options,
            "callbacks": list(callbacks),
        }
    )


def end_state(trainer: pl.Trainer) -> dict[str, Any]:
    """Weights, masks, averages, optimizer state and random state of a run: what it would save now."""
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_checkpoint(Path(folder) / "end.ckpt")
        saved = torch.load(Path(folder) / "end.ckpt", weights_only=True)
    state = {
        name: saved[name]
        for name in saved
        if name not in ("loops", "callbacks", "hparams_name", "pytorch-lightning_version")
    }
    ours = ("SelfishSparseCallback", "NonMonotonicAveraging")
    return {**state, "callbacks": {name: value for name, value in saved["callbacks"].items() if name in ours}}


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Name every place at which two nested structures of tensors and plain values are not the same, bit for bit."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.dtype == second.dtype and first.shape == second.shape
        return [] if same and torch.equal(first.nan_to_num(), second.nan_to_num()) else [path]
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        missing = [f"{path}.{key} only in one" for key in first.keys() ^ second.keys()]
        return missing + [
            found for key in first if key in second for found in differences(first[key], second[key], f"{path}.{key}")
        ]
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for index, (a, b) in pairs for found in differences(a, b, f"{path}[{index}]")]
    return [] if type(first) is type(second) and first == second else [f"{path}: {first!r} and {second!r}"]
