"""Training in several processes (DDP over gloo): they agree, and do together what one process does alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, loaders, make_trainer, text
from process_runs import in_processes
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from toy_runs import Net, Watch, weights

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel

pytestmark = QUIET


def ddp(count: int) -> dict[str, Any]:
    return {"strategy": "ddp", "devices": count} if count > 1 else {}


def masks_of(sparse: SelfishSparseCallback) -> dict[str, Tensor]:
    masks = sparse.topology.masks
    return {name: masks[parameter] for name, parameter in sparse.topology.parameters.items()}


def unequal(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    return [name for name in first.keys() | second.keys() if not torch.equal(first[name], second[name])]


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- they agree


class Differs(Net):
    """Starts from other weights in each process, and logs a metric that rises in some processes only."""

    def __init__(self, optimizer: str, rank: int, rises_in: Sequence[int]) -> None:
        torch.manual_seed(100 + rank)
        super().__init__(optimizer)
        self.direction = 1 if rank in rises_in else -1

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("differs", float(self.direction * self.trainer.current_epoch), sync_dist=False)


def train_differing(rank: int, folder: Path, count: int, optimizer: str, rises_in: Sequence[int]) -> dict[str, Any]:
    module, sparse = Differs(optimizer, rank, rises_in), SelfishSparseCallback(0.5)
    averaging = NonMonotonicAveraging("differs")
    watch = Watch(sparse)
    trainer = make_trainer(folder, [watch, sparse, *[averaging] * (optimizer == "sntasgd")], **ddp(count))
    before = weights(module)
    torch.manual_seed(rank)
    trainer.fit(module, *loaders())
    return {
        "processes": torch.distributed.get_world_size(),
        "batches": watch.batches,
        "before": before,
        "weights": weights(module),
        "masks": masks_of(sparse),
        "updates": sparse.updates,
        "began": averaging.began_epoch,
        "random": torch.rand(3),
    }


@pytest.mark.parametrize(
    ("count", "optimizer", "rises_in", "began"),
    [(2, "sntasgd", [0], 2), (2, "sntasgd", [1], None), (3, "sntasgd", [0, 2], 2), (2, "adam", [], None)],
)
def test_processes_that_differ_in_seeds_weights_and_metrics_keep_one_topology(
    tmp_path: Path, count: int, optimizer: str, rises_in: Sequence[int], began: int | None
) -> None:
    first, *others = in_processes(count, train_differing, tmp_path, count, optimizer, rises_in)
    assert first["processes"] == count
    assert first["batches"] > 0
    assert first["began"] == began
    assert len(first["updates"]) == 6
    for other in others:
        assert unequal(other["before"], first["before"])
        assert not torch.equal(other["random"], first["random"])
        assert unequal(other["masks"], first["masks"]) == []
        assert unequal(other["weights"], first["weights"]) == []
        assert other["updates"] == first["updates"]
        assert other["began"] == began


# ---------------------------------------------------------------------------------- they do what one process does alone


class Losses(pl.Callback):
    """Keeps every loss of training and validation."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.validation: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.train.append(float(pl_module.train_loss.compute()))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validation.append(float(trainer.callback_metrics["val_loss"]))


def language_model(seed: int = 1) -> LanguageModel:
    torch.manual_seed(seed)
    network = {"_target_": "lightning_sparse_rnn.models.StackedLSTM", "embedding_size": 5, "hidden_size": 6}
    optimizer = {"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 2.0, "weight_decay": 1e-4}
    return LanguageModel({**network, "dropout": 0.0}, vocab_size=22, optimizer=optimizer, lr_bptt=5)


def train_on_text(
    rank: int, folder: Path, count: int, columns: int, lengths: str, ckpt_path: str | None = None
) -> dict[str, Any]:
    place = str(folder / "text")
    data = TextDataModule(
        "folder", root=place, cache_dir=place, batch_size=columns, eval_batch_size=2, bptt=5, lengths=lengths
    )
    sparse, losses = SelfishSparseCallback(0.5), Losses()
    save = ModelCheckpoint(folder / f"{count}", filename="{epoch}", save_top_k=-1)
    trainer = make_trainer(
        folder,
        [sparse, NonMonotonicAveraging("val_loss", restart_epochs=[2]), losses, save],
        gradient_clip_val=0.25,
        **ddp(count),
    )
    model = language_model(seed=1 if ckpt_path is None else 2)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return {
        "train": losses.train,
        "validation": losses.validation,
        "masks": masks_of(sparse),
        "updates": sparse.updates,
        "weights": weights(model),
        "test": trainer.test(model, datamodule=data, verbose=False)[0]["test_loss"],
    }


@pytest.mark.parametrize(("count", "lengths"), [(2, "fixed"), (3, "fixed"), (2, "drawn")])
def test_processes_train_on_text_as_one_process_with_all_their_columns(
    tmp_path: Path, count: int, lengths: str
) -> None:
    text(tmp_path / "text")
    together = in_processes(count, train_on_text, tmp_path, count, 6 // count, lengths)
    alone = train_on_text(0, tmp_path, 1, 6, lengths)
    assert len(alone["train"]) == 6
    assert alone["train"][-1] < alone["train"][0] - 0.1
    for one in together:
        assert one["train"] == pytest.approx(alone["train"], rel=1e-5)
        assert one["validation"] == pytest.approx(alone["validation"], rel=1e-5)
        assert one["test"] == pytest.approx(alone["test"], rel=1e-5)
        assert one["updates"] == alone["updates"]
        assert unequal(one["masks"], alone["masks"]) == []
        assert_close(one["weights"], alone["weights"])
        assert unequal(one["weights"], together[0]["weights"]) == []
    # One process reads what several have saved.
    saved = LanguageModel.load_from_checkpoint(tmp_path / str(count) / "epoch=5.ckpt", weights_only=True)
    assert unequal(weights(saved), together[0]["weights"]) == []


def test_processes_resume_as_if_they_had_not_been_interrupted(tmp_path: Path) -> None:
    text(tmp_path / "text")
    whole = in_processes(2, train_on_text, tmp_path, 2, 3, "drawn")
    checkpoint = str(tmp_path / "2" / "epoch=3.ckpt")
    resumed = in_processes(2, train_on_text, tmp_path, 2, 3, "drawn", checkpoint)
    for before, after in zip(whole, resumed, strict=True):
        assert after["train"] == before["train"][4:]
        assert unequal(after["weights"], before["weights"]) == []
        assert unequal(after["masks"], before["masks"]) == []


# ------------------------------------------------------------------------------------- processes that Lightning starts


SCRIPT = """
import sys, warnings
import torch
from lightning_runs import loaders, make_trainer, sparse_callbacks, toy

warnings.simplefilter("ignore")
if __name__ == "__main__":
    torch.set_num_threads(1)
    sparse, averaging = sparse_callbacks()
    module = toy()
    trainer = make_trainer(sys.argv[2], [averaging, sparse], strategy=sys.argv[1], devices=2)
    trainer.fit(module, *loaders())
    assert trainer.world_size == 2
    trained = [parameter.clone() for parameter in module.parameters()]
    if sys.argv[1] == "ddp":
        trainer.test(module, loaders()[1], verbose=False)
    if trainer.global_rank == 0:
        assert all(torch.equal(*pair) for pair in zip(trained, module.parameters()))
        print("live weights:", [int((weight != 0).sum()) for weight in trained if weight.dim() > 1])
        try:
            print("updates:", sparse.topology.updates)
        except RuntimeError as error:
            print(error)
    if torch.distributed.is_initialized():  # gloo's threads abort a process that ends with its group
        torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "topology"),
    [("ddp", "updates: 5"), ("ddp_spawn", "A strategy that spawns processes leaves it in those")],
)
def test_a_script_trains_in_processes_that_lightning_starts(tmp_path: Path, strategy: str, topology: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    helpers = str(Path(__file__).parents[1] / "helpers")
    path = os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), strategy, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "live weights: [36, 72, 6]" in done.stdout
    assert topology in done.stdout
