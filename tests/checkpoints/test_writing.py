"""Checkpoints are written whole or not at all, at once or in the background, and a run goes on from them exactly."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import QUIET, Recipe, differences, rest_differs
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_sparse_rnn import SelfishSparseCallback
from lightning_sparse_rnn.checkpoints import packing, parts
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.checkpoints.writing import BackgroundCheckpointIO, WholeFileCheckpointIO
from lightning_sparse_rnn.models import LanguageModel

pytestmark = QUIET


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint({"global_step": 1, "state_dict": {}}, path)
    before = path.read_bytes()

    def out_of_space(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", out_of_space)
    with pytest.raises(OSError, match="No space"):
        WholeFileCheckpointIO().save_checkpoint({"global_step": 2, "state_dict": {}}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_elsewhere_is_written_lightnings_way(tmp_path: Path) -> None:
    WholeFileCheckpointIO().save_checkpoint({"global_step": 1}, f"file://{tmp_path}/there.ckpt")
    assert torch.load(tmp_path / "there.ckpt") == {"global_step": 1}
    with pytest.raises(TypeError, match="storage_options"):
        WholeFileCheckpointIO().save_checkpoint({"global_step": 1}, tmp_path / "here.ckpt", storage_options={})


def test_a_trainer_writes_with_it_what_it_writes_without(tmp_path: Path) -> None:
    for folder, plugins in (("with", [WholeFileCheckpointIO()]), ("without", [])):
        recipe = Recipe("text", options={"max_epochs": 1, "plugins": plugins})
        recipe.run(tmp_path / folder, ModelCheckpoint(tmp_path / "saved" / folder, filename="last"))
    ours, lightnings = (load_checkpoint(tmp_path / "saved" / folder / "last.ckpt") for folder in ("with", "without"))
    assert ours.keys() == lightnings.keys()
    assert all(torch.equal(ours["state_dict"][name], tensor) for name, tensor in lightnings["state_dict"].items())


# ------------------------------------------------------------------------------------------------- in the background


def test_what_is_written_in_the_background_is_what_was_there_when_it_was_saved(tmp_path: Path) -> None:
    flat = torch.arange(10_000.0)
    inside = {"whole": flat, "part": flat[100:200].view(10, 10).t(), "none": torch.empty(0), "plain": [1, {"a": None}]}
    checkpoint = {"global_step": 1, "state_dict": inside}
    WholeFileCheckpointIO().save_checkpoint(checkpoint, tmp_path / "at once" / "last.ckpt")
    background = BackgroundCheckpointIO()
    background.save_checkpoint(checkpoint, tmp_path / "later" / "last.ckpt")
    flat.zero_()
    inside["plain"].append(2)  # type: ignore[attr-defined]
    background.teardown()
    sizes = {folder: (tmp_path / folder / "last.ckpt").stat().st_size for folder in ("at once", "later")}
    assert sizes["later"] == sizes["at once"] < 2 * flat.nbytes  # what shares memory is written once
    at_once, later = (load_checkpoint(tmp_path / folder / "last.ckpt")["state_dict"] for folder in sizes)
    assert later["whole"][9_999] == 9_999.0
    assert all(torch.equal(later[name], at_once[name]) for name in ("whole", "part", "none"))
    assert later["part"].stride() == (1, 10)
    assert later["plain"] == [1, {"a": None}]


def test_files_written_in_the_background_are_whole_when_they_are_read_or_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, write = threading.Event(), WholeFileCheckpointIO.write

    def slowly(*args: Any) -> None:
        assert slow.wait(timeout=60)
        write(*args)

    monkeypatch.setattr(WholeFileCheckpointIO, "write", slowly)
    background = BackgroundCheckpointIO()
    for step in (1, 2):
        background.save_checkpoint({"global_step": step, "state_dict": {}}, tmp_path / f"{step}.ckpt")
    assert not list(tmp_path.glob("*.ckpt"))
    slow.set()
    assert background.load_checkpoint(tmp_path / "2.ckpt")["global_step"] == 2
    assert background.load_checkpoint(tmp_path / "1.ckpt")["global_step"] == 1
    slow.clear()
    written = []
    for step in (3, 4, 5, 6):  # the first is being written; of those that wait for it the last one counts
        background.save_checkpoint({"global_step": step, "state_dict": {}}, tmp_path / "1.ckpt")
        written.append(torch.load(tmp_path / "1.ckpt")["global_step"])
    assert written == [1, 1, 1, 1]
    assert len(background._writings) <= 2
    slow.set()
    assert background.load_checkpoint(tmp_path / "1.ckpt")["global_step"] == 6
    background.save_checkpoint({"global_step": 7, "state_dict": {}}, tmp_path / "1.ckpt")
    background.remove_checkpoint(tmp_path / "1.ckpt")
    assert not (tmp_path / "1.ckpt").exists()
    background.teardown()


@pytest.mark.parametrize(
    "then",
    [
        lambda io, path: io.save_checkpoint({}, path),
        lambda io, path: io.save_checkpoint({}, path.with_name("other")),
        lambda io, path: io.load_checkpoint(path),
        lambda io, path: io.teardown(),
    ],
)
def test_what_could_not_be_written_in_the_background_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: Callable[[BackgroundCheckpointIO, Path], Any]
) -> None:
    full = threading.Event()

    def out_of_space(*_: Any) -> None:
        assert full.wait(timeout=60)
        raise OSError("No space left on device")

    background = BackgroundCheckpointIO()
    with monkeypatch.context() as patch:
        patch.setattr(WholeFileCheckpointIO, "write", out_of_space)
        for name in ("last", "best", "third"):
            background.save_checkpoint({"global_step": 1}, tmp_path / name)
        full.set()
        with pytest.warns(UserWarning, match="A checkpoint could not be written: No space left"):
            background._writer.shutdown()  # type: ignore[union-attr]
    background._writer = None
    with pytest.raises(OSError, match="No space"):
        then(background, tmp_path / "last")
    background.teardown()  # there is nothing left to tell


def test_runs_that_save_in_the_background_or_compactly_go_on_exactly_as_the_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_SMALLEST", 0)
    monkeypatch.setattr(parts, "_SMALLEST", 1)
    monkeypatch.setattr(parts, "_AROUND_A_PART", 8000)
    compactly = [
        kind(True, limit) for limit in (10**9, 8192) for kind in (WholeFileCheckpointIO, BackgroundCheckpointIO)
    ]
    saved, runs, files = tmp_path / "saved", [], []
    for io in (WholeFileCheckpointIO(), BackgroundCheckpointIO(), *compactly):
        shutil.rmtree(saved, ignore_errors=True)
        saver = ModelCheckpoint(saved, filename="{step}", save_top_k=-1, every_n_train_steps=4)
        runs.append(Recipe("text", options={"max_epochs": 5, "plugins": [io]}).run(tmp_path, saver))
        files.append({path.name: load_checkpoint(path) for path in saved.glob("*.ckpt")})
    assert len(files[0]) == 7
    for others in files[1:]:
        assert not differences(files[0], others)
    assert len(list(saved.glob("step=24.ckpt.*"))) > 20
    # Read by a Trainer whose own files are not compact; before and after averaging has begun.
    for step in ("step=8.ckpt", "step=24.ckpt"):
        assert "lightning_sparse_rnn.packed" in torch.load(saved / step, weights_only=True)
        recipe = Recipe("text", options={"max_epochs": 5, "plugins": [WholeFileCheckpointIO()]})
        assert not rest_differs(runs[0], recipe.run(tmp_path, ckpt_path=saved / step))
    loaded = LanguageModel.load_from_checkpoint(saved / "step=24.ckpt")
    assert not differences(dict(loaded.state_dict()), dict(files[0]["step=24.ckpt"]["state_dict"]))
    topology = SelfishSparseCallback.from_checkpoint(saved / "step=24.ckpt").state_dict()["topology"]
    assert not differences(topology, files[0]["step=24.ckpt"]["callbacks"]["SelfishSparseCallback"]["topology"])
