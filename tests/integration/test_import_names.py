"""The same callbacks train modules of ``pytorch_lightning`` and of ``lightning.pytorch``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning_runs import QUIET, ToyParts, differences, end_state, loaders, make_trainer, sparse_callbacks

from lightning_sparse_rnn import SelfishSparseCallback

pytestmark = [
    *QUIET,
    # Where the two packages are not of one version.
    pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning"),
]

NAMES = ("pytorch_lightning", "lightning.pytorch")


class Run(NamedTuple):
    state: dict[str, Any]
    validated: dict[str, float]
    tested: dict[str, float]


def package(name: str) -> Any:
    return pytest.importorskip(name)


def toy_of(name: str, seed: int) -> Any:
    """The toy as a LightningModule of one of the two packages."""
    torch.manual_seed(seed)
    return type("Toy", (ToyParts, package(name).LightningModule), {})()


def run(name: str, folder: Path, ckpt_path: Path | None = None) -> Run:
    """Fit, validate and test the toy, with that package's own Trainer, ModelCheckpoint and module."""
    package_ = package(name)
    saver = package_.callbacks.ModelCheckpoint(
        folder, filename="{step}", monitor="rising", mode="max", save_top_k=-1, enable_version_counter=False
    )
    module = toy_of(name, seed=1 if ckpt_path is None else 2)
    trainer = make_trainer(
        folder, [*sparse_callbacks(), saver], kind=package_.Trainer, enable_checkpointing=True, max_epochs=5
    )
    torch.manual_seed(1 if ckpt_path is None else 2)
    train, held_out = loaders()
    trainer.fit(module, train, held_out, ckpt_path=ckpt_path)
    state = end_state(trainer)
    (validated,) = trainer.validate(module, held_out, ckpt_path="best", verbose=False)
    (tested,) = trainer.test(module, held_out, ckpt_path="best", verbose=False)
    return Run(state, dict(validated), dict(tested))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Run]]:
    """Both packages' runs, and where their checkpoints are."""
    folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    return {name: (folder, run(name, folder)) for name, folder in folders.items()}


def test_both_names_train_the_same(runs: dict[str, tuple[Path, Run]]) -> None:
    first, second = (runs[name][1] for name in NAMES)
    (optimizer,) = first.state["optimizer_states"]
    assert optimizer["averaging"]["averaging"]
    assert len(first.state["callbacks"]["SelfishSparseCallback"]["updates"]) == 5
    assert not differences(first._asdict(), second._asdict())


@pytest.mark.parametrize("resumed_by", NAMES)
@pytest.mark.parametrize("saved_by", NAMES)
@pytest.mark.parametrize("step", [10, 20])  # before and after the trigger
def test_a_run_of_either_name_is_resumed_by_either(
    runs: dict[str, tuple[Path, Run]], saved_by: str, resumed_by: str, step: int
) -> None:
    folder, whole = runs[saved_by]
    resumed = run(resumed_by, folder, ckpt_path=folder / f"step={step}.ckpt")
    assert not differences(whole._asdict(), resumed._asdict())


def test_what_is_refused_is_refused_under_the_other_name(tmp_path: Path) -> None:
    package_ = package("lightning.pytorch")
    averaging = package_.callbacks.StochasticWeightAveraging(swa_lrs=0.1)
    trainer = make_trainer(
        tmp_path, [SelfishSparseCallback(0.5), averaging], kind=package_.Trainer, enable_checkpointing=False
    )
    with pytest.raises(Exception, match="cannot run beside StochasticWeightAveraging"):
        trainer.fit(toy_of("lightning.pytorch", seed=1), *loaders())
