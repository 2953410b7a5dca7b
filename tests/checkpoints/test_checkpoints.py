"""Checkpoint files: written whole, found again, and checked."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import QUIET, Recipe, differences, language_model, rest_differs
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from lightning_sparse_rnn import SelfishSparseCallback
from lightning_sparse_rnn.checkpoints import packing, parts
from lightning_sparse_rnn.checkpoints.fits import check_fits
from lightning_sparse_rnn.checkpoints.reading import find_last_good, load_checkpoint
from lightning_sparse_rnn.checkpoints.snapshots import snapshot
from lightning_sparse_rnn.checkpoints.writing import BackgroundCheckpointIO, WholeFileCheckpointIO
from lightning_sparse_rnn.models import LanguageModel

pytestmark = QUIET


def save(path: Path, step: int, **entries: Any) -> Path:
    """Write a small checkpoint of so many steps."""
    weights = {"weight": torch.arange(1000.0)}
    torch.save({"global_step": step, "state_dict": weights, "optimizer_states": [], **entries}, path)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scribble(path: Path) -> None:
    path.write_bytes(b"This is no checkpoint.\n" * 100)


def blank(path: Path) -> None:
    """Zero a piece of the weights, as a machine that loses power may."""
    content = bytearray(path.read_bytes())
    start = content.index(torch.arange(100.0, 200.0).numpy().tobytes())
    content[start : start + 400] = bytes(400)
    path.write_bytes(content)


DAMAGES = [cut, empty, scribble, blank]


# ------------------------------------------------------------------------------------------------------------ finding


def test_the_last_good_checkpoint_is_the_one_of_most_steps_and_of_equals_the_newest(tmp_path: Path) -> None:
    assert find_last_good(tmp_path / "not there") is None
    assert find_last_good(tmp_path) is None
    for age, (name, step) in enumerate([("a", 9), ("b", 10), ("c", 10), ("d", 2)]):
        os.utime(save(tmp_path / f"{name}.ckpt", step), (10**9 - age, 10**9 - age))
    assert find_last_good(tmp_path) == tmp_path / "b.ckpt"
    os.utime(tmp_path / "c.ckpt")
    assert find_last_good(str(tmp_path)) == tmp_path / "c.ckpt"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_passed_over_and_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    good = save(tmp_path / "good.ckpt", 3)
    damage(save(tmp_path / "bad.ckpt", 4))
    message = r"Passing over the checkpoint .*bad\.ckpt: .* is cut short or damaged"
    with pytest.warns(UserWarning, match=message) as warned:
        assert find_last_good(tmp_path) == good
    assert len(warned) == 1
    good.unlink()
    with pytest.warns(UserWarning, match=message):
        assert find_last_good(tmp_path) is None


def test_a_checkpoint_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    content = save(tmp_path / "whole.ckpt", 1).read_bytes()
    for end in range(0, len(content), len(content) // 40):
        (tmp_path / "cut.ckpt").write_bytes(content[:end])
        with pytest.raises(ValueError, match=f"{end} bytes. is cut short"):
            load_checkpoint(tmp_path / "cut.ckpt")


def test_what_training_cannot_go_on_from_is_passed_over(tmp_path: Path) -> None:
    good = save(tmp_path / "last.ckpt", 3)
    weights = torch.load(save(tmp_path / "best.ckpt", 5))
    del weights["optimizer_states"]
    torch.save(weights, tmp_path / "best.ckpt")  # as written with `save_weights_only=True`
    save(tmp_path / "last.ckpt.part", 7)
    cut(tmp_path / "last.ckpt.part")
    assert find_last_good(tmp_path) == good
    (tmp_path / "link.ckpt").symlink_to(tmp_path / "gone.ckpt")
    with pytest.warns(UserWarning, match=r"link\.ckpt"):
        assert find_last_good(tmp_path) == good


def test_a_checkpoint_without_checksums_is_good(tmp_path: Path) -> None:
    without = getattr(torch.serialization, "set_crc32_options", None)
    if without is None:
        pytest.skip("this torch writes checksums always")
    without(False)
    try:
        path = save(tmp_path / "last.ckpt", 3)
    finally:
        without(True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is not None
    assert find_last_good(tmp_path) == path


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("damage", DAMAGES)
def test_reading_a_damaged_checkpoint_says_so(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = save(tmp_path / "bad.ckpt", 0)
    assert torch.equal(load_checkpoint(path)["state_dict"]["weight"], torch.arange(1000.0))
    damage(path)
    with pytest.raises(ValueError, match=r"bad\.ckpt \(\d+ bytes\) is cut short or damaged.* Use an earlier one"):
        load_checkpoint(path)


def test_reading_what_is_not_there_says_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.ckpt"):
        with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
            load_checkpoint(path)


def test_reading_weights_that_are_no_checkpoint_says_what_is_there(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"Expected a checkpoint of Lightning.*got \['bias', 'weight'\]"):
        load_checkpoint(tmp_path / "weights.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match=r"Expected a checkpoint of Lightning.*got Tensor"):
        load_checkpoint(tmp_path / "tensor.pt")


class Bomb:
    """An object that runs code when Python unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (pickle.dumps(0),)


def test_a_checkpoint_with_other_objects_is_read_if_it_is_trusted(tmp_path: Path) -> None:
    options = {"rate": functools.partial(max, 1), "sizes": OmegaConf.create({"hidden": 5}), "root": Path("text")}
    path = save(tmp_path / "objects.ckpt", 1, hyper_parameters=options)
    with pytest.raises(ValueError, match="If you trust whoever made the file, pass weights_only=False"):
        load_checkpoint(path)
    read = load_checkpoint(path, weights_only=False)["hyper_parameters"]
    assert (read["rate"](0), read["sizes"], read["root"]) == (1, options["sizes"], Path("text"))


def test_a_checkpoint_with_other_objects_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path / "bomb.ckpt", 1, hyper_parameters=Bomb())
    with pytest.raises(ValueError, match="holds more than tensors and plain values: check the hyperparameters"):
        load_checkpoint(path)
    with pytest.warns(UserWarning, match=r"bomb\.ckpt"):
        assert find_last_good(tmp_path) is None


# ------------------------------------------------------------------------------------------------------- what differs


def test_a_checkpoint_of_another_model_is_refused_by_what_differs() -> None:
    module = language_model()
    checkpoint = {"state_dict": module.state_dict()}
    check_fits(checkpoint, language_model(seed=5))

    network = dict(module.hparams["network"])
    with pytest.raises(ValueError, match="of another model than this LanguageModel") as caught:
        check_fits(checkpoint, LanguageModel({**network, "hidden_size": 7, "num_layers": 1}, vocab_size=22))
    message = str(caught.value)
    assert "only it has network.layers.weight_ih_l1 (24, 6)" in message
    assert "shapes differ in network.decoder.weight, (22, 6) there and (22, 7) here" in message
    assert "lacks" not in message
    with pytest.raises(ValueError, match=r"it lacks network\.layers\.weight_ih_l2 \(24, 6\)") as caught:
        check_fits(checkpoint, LanguageModel({**network, "num_layers": 6}, vocab_size=22))
    assert "and 8 more" in str(caught.value)


def test_without_strict_only_shapes_must_agree() -> None:
    checkpoint = {"state_dict": {"weight": torch.zeros(2, 3), "other": torch.zeros(1), "_extra_state": "no tensor"}}
    check_fits(checkpoint, nn.Linear(3, 2), strict=False)
    with pytest.raises(ValueError, match=r"Linear: it lacks bias \(2,\); only it has other \(1,\)\. Make"):
        check_fits(checkpoint, nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"Linear: shapes differ in weight, \(2, 3\) there and \(2, 4\) here\. Make"):
        check_fits(checkpoint, nn.Linear(4, 2), strict=False)


# ------------------------------------------------------------------------------------------------------------ writing


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


def test_a_snapshot_is_what_there_was_and_shares_what_was_shared() -> None:
    flat = torch.arange(12.0)
    weights = nn.Linear(2, 2).state_dict()
    before = {"all": flat, "part": flat[3:9].view(2, 3).t(), "list": [1, (flat, "a")], "weights": weights}
    before["none"], before["scalar"] = torch.empty(0), torch.tensor(3)
    after = snapshot(before)
    assert differences(before, after) == []
    assert after["part"].untyped_storage().data_ptr() == after["all"].untyped_storage().data_ptr()
    assert after["list"][1][0].data_ptr() == after["all"].data_ptr() != flat.data_ptr()
    assert after["part"].stride() == before["part"].stride()
    assert after["weights"]._metadata == weights._metadata
    flat.zero_()
    before["list"].append(2)
    assert after["all"].sum() == 66.0
    assert len(after["list"]) == 2


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
