"""Toy runs for the tests of the callbacks: small modules and texts, and all that a run's future depends on."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
        return (self.linear(hidden[:, -1]) - batch[1]).square().mean()  # torch 2.5 has no mse_loss in bfloat16

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


# A tiny network with dropout, and others: tied weights, other cells, states of other forms.
STACKED = {"_target_": "lightning_sparse_rnn.models.StackedLSTM", "embedding_size": 5, "hidden_size": 6, "dropout": 0.2}
_SIZES = {"embedding_size": 6, "hidden_size": 8, "num_layers": 2}
NETWORKS: dict[str, Mapping[str, Any]] = {
    "tied LSTM": {**STACKED, "hidden_size": 5, "tied": True},
    "GRU": {**STACKED, "_target_": "lightning_sparse_rnn.models.GRU"},
    "RHN": {
        "_target_": "lightning_sparse_rnn.models.RecurrentHighwayNetwork",
        "embedding_size": 6,
        "hidden_size": 6,
        "depth": 3,
    },
    "ON-LSTM": {"_target_": "lightning_sparse_rnn.models.OrderedNeuronsLSTM", **_SIZES, "chunk_size": 2},
    "AWD-LSTM": {"_target_": "lightning_sparse_rnn.models.AWDLSTM", **_SIZES},
    "MoS": {"_target_": "lightning_sparse_rnn.models.AWDLSTMMoS", **_SIZES, "last_size": 7, "experts": 3},
}


def language_model(optimizer: str = "sntasgd", seed: int = 1, network: Mapping[str, Any] = STACKED) -> LanguageModel:
    """A language model of a tiny network."""
    torch.manual_seed(seed)
    optimizers = {
        "sntasgd": {"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 1.0, "weight_decay": 1e-4, "nonmono": 1},
        "adam": {"_target_": "torch.optim.Adam", "lr": 0.01},
    }
    return LanguageModel(network, vocab_size=22, optimizer=optimizers[optimizer])


def text(folder: Path, **options: Any) -> TextDataModule:
    """A text of twenty words: six batches to train on, with fixed lengths, and three to validate on."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for part, lines in (("train", 25), ("valid", 20), ("test", 20)):
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
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            names = ("val_loss", "rising")
            self.rows += [(trainer.global_step, name, float(trainer.callback_metrics[name])) for name in names]


def sparse_callbacks(optimizer: str = "sntasgd", **options: Any) -> list[pl.Callback]:
    """Both callbacks, or the one that goes with an optimizer that does not average."""
    sparse = SelfishSparseCallback(**{"sparsity": 0.5, "prune_rate": 0.5, **options})
    return [sparse, NonMonotonicAveraging("rising")] if optimizer == "sntasgd" else [sparse]


def make_trainer(folder: Path, callbacks: Sequence[Any], kind: Any = pl.Trainer, **options: Any) -> pl.Trainer:
    """A silent Trainer that saves only what ``callbacks`` save."""
    trainer: pl.Trainer = kind(
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
    return trainer


class Run(NamedTuple):
    """A run that has ended."""

    trainer: pl.Trainer
    module: pl.LightningModule
    rows: list[tuple[int, str, float]]


@dataclass(frozen=True)
class Recipe:
    """A run that can be made again: the toy or the language model, sparse and with dropout.

    With SNTASGD its trigger fires in the third validation.
    """

    kind: str = "toy"
    optimizer: str = "sntasgd"
    network: Mapping[str, Any] = field(default_factory=lambda: STACKED)
    sparse: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def module(self, seed: int = 1) -> pl.LightningModule:
        """The module as it is before training."""
        if self.kind == "toy":
            return toy(self.optimizer, seed)
        return language_model(self.optimizer, seed, self.network)

    def feed(self, folder: Path) -> dict[str, Any]:
        """What to train and validate on, as arguments of ``fit``."""
        if self.kind == "toy":
            return dict(zip(("train_dataloaders", "val_dataloaders"), loaders(), strict=True))
        return {"datamodule": text(folder / "text", **self.data)}

    def trainer(self, folder: Path, *callbacks: pl.Callback) -> pl.Trainer:
        """Its Trainer, with ``callbacks`` after its own."""
        rising = [] if self.kind == "toy" else [Rising()]
        own = [*rising, *sparse_callbacks(self.optimizer, **self.sparse)]
        return make_trainer(
            folder, [*own, *callbacks], **{"max_epochs": 5 if self.kind == "toy" else 4, **self.options}
        )

    def run(self, folder: Path, *callbacks: pl.Callback, ckpt_path: Path | None = None) -> Run:
        """Make the run, or the rest of it; what a checkpoint has to bring back starts out different then."""
        seed = 1 if ckpt_path is None else 2
        module, record = self.module(seed), Record()
        trainer = self.trainer(folder, record, *callbacks)
        torch.manual_seed(seed)
        trainer.fit(module, **self.feed(folder), ckpt_path=ckpt_path)
        return Run(trainer, module, record.rows)


def end_state(trainer: pl.Trainer) -> dict[str, Any]:
    """Weights, masks, averages, the trigger's history, optimizer and random state: what the run would save now."""
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_checkpoint(Path(folder) / "end.ckpt")
        saved = torch.load(Path(folder) / "end.ckpt", weights_only=True)
    callbacks = {
        name: saved["callbacks"][name]
        for name in ("SelfishSparseCallback", "NonMonotonicAveraging")
        if name in saved["callbacks"]
    }
    names = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "lightning_sparse_rnn.resume")
    return {**{name: saved[name] for name in names}, "callbacks": callbacks}


def rest_differs(whole: Run, resumed: Run) -> list[str]:
    """Name what a resumed run has computed or ended with that the uninterrupted one has not."""
    found = differences(end_state(whole.trainer), end_state(resumed.trainer))
    if resumed.rows != whole.rows[len(whole.rows) - len(resumed.rows) :]:
        found.append(f"losses and metrics from {resumed.rows[0]} on")
    return found


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Name every place at which two nested structures of tensors and plain values are not the same, bit for bit."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
        return [] if same else [path]
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        found = [f"{path}.{key} only in one" for key in first.keys() ^ second.keys()]
        for key in first.keys() & second.keys():
            found += differences(first[key], second[key], f"{path}.{key}")
        return found
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second):
        found = []
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            found += differences(one, other, f"{path}[{index}]")
        return found
    return [] if type(first) is type(second) and first == second else [f"{path}: {first!r} and {second!r}"]


def in_a_fresh_process(function: Callable[..., None], *arguments: Any) -> int:
    """Call a function of a test module in a process that knows nothing of this one, and return its exit code."""
    context = multiprocessing.get_context("forkserver")  # imports once, and forks processes that have done nothing else
    context.set_forkserver_preload(["lightning_sparse_rnn.models"])
    process = context.Process(target=_on_one_thread, args=(function, *arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _on_one_thread(function: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    function(*arguments)
