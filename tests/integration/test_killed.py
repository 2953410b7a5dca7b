"""Runs that are killed: the same command goes on from the last good checkpoint as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, Recipe, Run, differences, end_state, in_a_fresh_process
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_sparse_rnn.checkpoints.reading import find_last_good
from lightning_sparse_rnn.checkpoints.writing import WholeFileCheckpointIO

pytestmark = QUIET

EVERY, STEPS = 4, 30  # steps between checkpoints, and in all; averaging begins at step 18


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillInBatch(pl.Callback):
    """Kills the process in the middle of the batch after so many steps."""

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 22:
            kill_me()


def kill_while_writing() -> None:
    """Kill the process when half of the sixth checkpoint is in its file."""
    save = torch.save

    def half(saved: dict[str, Any], file: Any) -> None:
        save(saved, file)
        if saved.get("global_step") == 6 * EVERY:
            file.truncate(file.tell() // 2)
            file.flush()
            kill_me()

    torch.save = half


def kill_while_moving() -> None:
    """Kill the process when half of the sixth checkpoint has been moved to another disk."""

    def half(source: str, target: str) -> None:
        content, sixth = Path(source).read_bytes(), target.endswith(f"step={6 * EVERY}.ckpt")
        Path(target).write_bytes(content[: len(content) // 2] if sixth else content)
        if sixth:
            kill_me()

    shutil.move = half


def train(folder: Path, name: str, plugins: list[Any], *callbacks: pl.Callback) -> Run:
    """The command: train, going on from the last good checkpoint if there is one."""
    saver = ModelCheckpoint(
        folder, filename=name, save_top_k=-1, every_n_train_steps=EVERY, enable_version_counter=False
    )
    recipe = Recipe("text", options={"max_epochs": 5, "plugins": plugins})
    return recipe.run(folder, saver, *callbacks, ckpt_path=find_last_good(folder))


def killed_in_a_batch(folder: Path) -> None:
    train(folder, "last", [WholeFileCheckpointIO()], KillInBatch())


def killed_while_writing(folder: Path) -> None:
    kill_while_writing()
    train(folder, "last", [WholeFileCheckpointIO()])


def killed_while_moving(folder: Path) -> None:
    kill_while_moving()
    train(folder, "{step}", [])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return end_state(train(tmp_path_factory.mktemp("whole"), "last", []).trainer)


@pytest.mark.parametrize(
    ("killed", "name", "plugins", "left"),
    [
        (killed_in_a_batch, "last", [WholeFileCheckpointIO()], {"last.ckpt"}),
        (killed_while_writing, "last", [WholeFileCheckpointIO()], {"last.ckpt", "last.ckpt.part"}),
        (killed_while_moving, "{step}", [], {f"step={step}.ckpt" for step in range(EVERY, 25, EVERY)}),
    ],
)
def test_the_same_command_goes_on_where_the_killed_run_was(
    tmp_path: Path,
    uninterrupted: dict[str, Any],
    killed: Callable[[Path], None],
    name: str,
    plugins: list[Any],
    left: set[str],
) -> None:
    assert in_a_fresh_process(killed, tmp_path) == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == left
    truncated = "step=24.ckpt" in left
    with pytest.warns(UserWarning, match=r"step=24\.ckpt .* cut short") if truncated else nullcontext():
        good = find_last_good(tmp_path)
    assert good is not None
    assert torch.load(good, weights_only=True)["global_step"] == 20
    with pytest.warns(UserWarning, match=r"step=24\.ckpt .* cut short") if truncated else nullcontext():
        run = train(tmp_path, name, plugins)
    assert run.rows[0][0] == 21
    assert run.trainer.global_step == STEPS
    assert not differences(uninterrupted, end_state(run.trainer))
