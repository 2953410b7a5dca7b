"""Checkpoints in parts, as files: written safely, found beside their own file, and removed with it."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints_of_every_kind import checkpoint, same
from lightning_runs import QUIET, Recipe
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_sparse_rnn.checkpoints import packing, parts
from lightning_sparse_rnn.checkpoints.part_files import PartError
from lightning_sparse_rnn.checkpoints.reading import find_last_good, load_checkpoint, peek
from lightning_sparse_rnn.checkpoints.writing import BackgroundCheckpointIO, WholeFileCheckpointIO

pytestmark = QUIET
LIMIT = 27_000  # four parts
NAME = re.compile(r"[^.]+\.ckpt\.[0-9a-f]{16}\.(\d+)of(\d+)")


def save(path: Path, seed: int = 0, **options: Any) -> list[Path]:
    """Write a checkpoint of ``seed`` steps, and return the files of its parts in order."""
    WholeFileCheckpointIO(**{"compact": True, "max_file_bytes": LIMIT, **options}).save_checkpoint(
        {**checkpoint(seed), "global_step": seed}, path
    )
    return parts_beside(path)


def parts_beside(path: Path) -> list[Path]:
    numbers = {each: match for each in path.parent.iterdir() if (match := NAME.fullmatch(each.name))}
    return sorted((each for each in numbers if each.name.startswith(path.name)), key=lambda each: int(numbers[each][1]))


def is_of(path: Path, seed: int) -> None:
    """Assert that a file is the checkpoint of ``seed`` steps, whoever reads it."""
    for read in (load_checkpoint, WholeFileCheckpointIO().load_checkpoint, BackgroundCheckpointIO().load_checkpoint):
        same(read(path), {**checkpoint(seed), "global_step": seed})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "last.ckpt"


def test_files_have_at_most_their_limit_and_are_plain_tensors(path: Path) -> None:
    found = save(path, 3)
    assert [NAME.fullmatch(each.name).groups() for each in found] == [(str(i), "4") for i in range(1, 5)]  # type: ignore[union-attr]
    assert max(each.stat().st_size for each in path.parent.iterdir()) <= LIMIT
    assert len(list(path.parent.iterdir())) == 5
    is_of(path, 3)
    assert find_last_good(path.parent) == path
    assert peek(path)["global_step"] == 3
    for each in (path, *found):
        torch.load(each, weights_only=True)
    with pytest.raises(ValueError, match=r"Expected max_file_bytes of at least 8192, got 100\."):
        WholeFileCheckpointIO(compact=True, max_file_bytes=100)


@pytest.mark.parametrize("location", ["meta", torch.device("meta"), {"cpu": "meta"}])
@pytest.mark.parametrize("limit", [LIMIT, 10**6])
def test_tensors_go_where_they_are_to_go(path: Path, location: Any, limit: int) -> None:
    save(path, 1, max_file_bytes=limit)
    weights = load_checkpoint(path, map_location=location)["state_dict"]
    assert {weight.device.type for weight in weights.values()} == {"meta"}
    for anywhere in (None, lambda storage, _: storage):
        same(load_checkpoint(path, map_location=anywhere), {**checkpoint(1), "global_step": 1})


@pytest.mark.parametrize("options", [{"max_file_bytes": 10**6}, {"compact": False}])
def test_one_that_fits_and_one_of_before_are_one_file(path: Path, options: dict[str, Any]) -> None:
    assert save(path, 1)
    assert save(path, 2, **options) == []  # nor is there any of the one before
    assert list(path.parent.iterdir()) == [path]
    packed = torch.load(path, weights_only=True).get("lightning_sparse_rnn.packed")
    assert packed is None or packed.keys() == {"version", "tensors"}
    assert packed is None or packed["version"] == 1
    is_of(path, 2)


# ------------------------------------------------------------------------------------------------------------ crashes


class Moments:
    """Keeps a copy of a folder at each moment at which a process that writes a checkpoint could die."""

    def __init__(self, folder: Path, copies: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._copies, self.count = folder, copies, 0
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, self._watched(getattr(owner, name)))
        self._save = torch.save
        patch.setattr(torch, "save", self._save_in_halves)

    def keep(self) -> None:
        shutil.copytree(self._folder, self._copies / str(self.count))
        self.count += 1

    def _watched(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            self.keep()
            return step(*args, **options)

        return watched

    def _save_in_halves(self, value: Any, file: Any) -> None:
        at = self._copies / "at"
        self._save(value, at)
        content = at.read_bytes()
        for half in (content[: len(content) // 2], content[len(content) // 2 :]):
            file.write(half)
            file.flush()
            self.keep()


@pytest.mark.parametrize("then", [LIMIT, 10**6])
def test_whenever_the_process_dies_there_is_a_whole_checkpoint_and_the_next_write_leaves_no_rest(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: int
) -> None:
    save(path, 1)
    (copies := tmp_path / "copies").mkdir()
    with monkeypatch.context() as patch:
        moments = Moments(path.parent, copies, patch)
        save(path, 2, max_file_bytes=then)
        moments.keep()
    found = []
    for number in range(moments.count):
        copy = copies / str(number) / path.name
        assert find_last_good(copy.parent) == copy
        whole = load_checkpoint(copy)
        found.append(whole["global_step"])
        same(whole, {**checkpoint(found[-1]), "global_step": found[-1]})
        assert len(save(copy, 3)) == len(list(copy.parent.iterdir())) - 1
        assert load_checkpoint(copy)["global_step"] == 3
    # One after the other: the old one up to where the new one's own file takes its place.
    assert found == sorted(found)
    assert found[0] == 1
    assert found[-1] == 2
    assert found.count(2) >= 5  # one before each of the old parts is removed
    assert moments.count > (30 if then == LIMIT else 8)


def test_the_old_parts_are_removed_when_the_new_names_are_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(path, 1)
    steps: list[str] = []

    def noted(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            steps.append(f"{name} {'own' if path in args[1:] else ''}".strip())
            return step(*args, **options)

        return run

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name)))
    save(path, 2)
    one = ["fsync", "replace", "unlink"]  # a file, its name; the last of what is not there any more
    assert steps == [*one * 4, "fsync", "fsync", "replace own", "unlink", "fsync", *["unlink"] * 4]


@pytest.mark.parametrize("at", range(1, 6))
def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    save(path, 1)
    before = {each: each.read_bytes() for each in path.parent.iterdir()}
    calls, write = [], WholeFileCheckpointIO.write

    def full(self: Any, content: Any, to: Path) -> None:
        calls.append(to)
        if len(calls) == at:
            raise OSError("No space left on device")
        write(self, content, to)

    monkeypatch.setattr(WholeFileCheckpointIO, "write", full)
    with pytest.raises(OSError, match="No space"):
        save(path, 2)
    assert {each: each.read_bytes() for each in path.parent.iterdir()} == before


# ---------------------------------------------------------------------------------- what is missing, damaged, another's


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def of_another(file: Path) -> None:
    torch.save({**torch.load(file), "token": "0" * 16}, file)


def another_part(file: Path) -> None:
    shutil.copy(parts_beside(file.parent / "last.ckpt")[1], file)


def of_another_size(file: Path) -> None:
    part = torch.load(file)
    torch.save({**part, "bytes": part["bytes"][:-1].clone()}, file)


def compressed(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in content.items():
            archive.writestr(name, each)


def no_part(file: Path) -> None:
    torch.save([1, 2], file)


DAMAGES: dict[Callable[[Path], None], str] = {
    Path.unlink: r"in 4 parts, of which last\.ckpt\.\w+\.3of4 is not beside it\. Copy all files last\.ckpt\* from",
    cut: "its end is missing",
    flip: "is not what was written",
    of_another: "it is part 3 of a checkpoint with the token 0000",
    another_part: "it is part 2 of a checkpoint with the token",
    of_another_size: r"there are \(\d+,\) values of torch.uint8 instead of \d+ bytes",
    compressed: "it is compressed, which torch does not do",
    no_part: "list indices must be integers",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_part_that_is_not_right_is_named_with_what_to_do(path: Path, damage: Callable[[Path], None]) -> None:
    older = path.with_name("older.ckpt")
    save(older, 1)
    found = save(path, 2)
    damage(found[2])
    # Not even passed over for an older one: no crash does that, and the files may be where they were copied from.
    for read in (load_checkpoint, WholeFileCheckpointIO().load_checkpoint, lambda path: find_last_good(path.parent)):
        with pytest.raises(PartError, match=DAMAGES[damage]) as raised:
            read(path)  # type: ignore[operator]
        assert found[2].name in str(raised.value)
        assert str(path) in str(raised.value)
        assert f"remove {path} to go on without it" in str(raised.value)
    path.unlink()
    assert find_last_good(path.parent) == older


def test_all_parts_that_are_missing_are_named(path: Path) -> None:
    found = save(path, 2)
    found[0].unlink()
    found[3].unlink()
    with pytest.raises(PartError, match=rf"{found[0].name}, {found[3].name} are not beside it"):
        load_checkpoint(path)


def test_a_checkpoint_whose_own_file_is_damaged_is_passed_over(path: Path) -> None:
    older = path.with_name("older.ckpt")
    save(older, 1)
    save(path, 2)
    cut(path)
    with pytest.warns(UserWarning, match=r"Passing over the checkpoint .*last\.ckpt"):
        assert find_last_good(path.parent) == older
    save(path, 3)  # in its place, and its parts are gone
    assert len(list(path.parent.iterdir())) == 10


# ------------------------------------------------------------------------------------------------- moved and removed


def test_files_that_are_moved_together_are_found(path: Path, tmp_path: Path) -> None:
    save(path, 2)
    elsewhere = tmp_path / "other [machine]"
    shutil.move(path.parent, elsewhere)
    is_of(elsewhere / path.name, 2)
    for each in list(elsewhere.iterdir()):
        each.rename(each.with_name(each.name.replace("last", "first")))
    is_of(elsewhere / "first.ckpt", 2)
    (tmp_path / "link.ckpt").symlink_to(elsewhere / "first.ckpt")
    is_of(tmp_path / "link.ckpt", 2)


def test_parts_that_another_checkpoint_has_are_kept(path: Path) -> None:
    save(path, 1)
    copy = path.with_name("copy.ckpt")
    shutil.copy(path, copy)  # its own file alone
    cut(Path(shutil.copy(path, path.with_name("damaged.ckpt"))))
    path.with_name("folder.ckpt").mkdir()
    save(path, 2)
    is_of(copy, 1)
    is_of(path, 2)
    assert len(parts_beside(path)) == 8
    copy.unlink()
    save(path, 3)
    is_of(path, 3)
    assert len(parts_beside(path)) == 4
    shutil.copy(path, copy)
    WholeFileCheckpointIO().remove_checkpoint(path)
    is_of(copy, 3)


@pytest.mark.parametrize("io", [WholeFileCheckpointIO, BackgroundCheckpointIO])
def test_a_checkpoint_is_removed_with_its_parts_and_no_others(path: Path, io: type[WholeFileCheckpointIO]) -> None:
    others = [path.with_name("last.ckpt.ckpt"), path.with_name("very last.ckpt")]
    for other in others:
        save(other, 1)
    path.with_name("last.ckpt.notes").write_text("mine")
    before = set(path.parent.iterdir())
    writer = io(compact=True, max_file_bytes=LIMIT)
    writer.save_checkpoint({**checkpoint(2), "global_step": 2}, path)
    writer.remove_checkpoint(path)
    writer.teardown()
    assert set(path.parent.iterdir()) == before
    writer.remove_checkpoint(path)  # which is gone
    writer.remove_checkpoint(path.parent / "nowhere" / "last.ckpt")
    for other in others:
        is_of(other, 1)


def test_the_best_of_a_trainer_are_kept_with_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_SMALLEST", 0)
    monkeypatch.setattr(parts, "_SMALLEST", 1)
    io = WholeFileCheckpointIO(compact=True, max_file_bytes=8192)
    saver = ModelCheckpoint(tmp_path / "saved", "{epoch}", monitor="rising", mode="max", save_top_k=2, save_last="link")
    Recipe("text", options={"max_epochs": 6, "plugins": [io]}).run(tmp_path, saver)
    files = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert [name for name in files if name.endswith(".ckpt")] == ["epoch=4.ckpt", "epoch=5.ckpt", "last.ckpt"]
    assert load_checkpoint(tmp_path / "saved" / "last.ckpt")["epoch"] == 5
    assert load_checkpoint(tmp_path / "saved" / "epoch=4.ckpt")["epoch"] == 4
    assert all(name.startswith(("epoch=4.ckpt", "epoch=5.ckpt", "last.ckpt")) for name in files)
    assert len(files) > 3


def test_elsewhere_checkpoints_are_one_file(path: Path, tmp_path: Path) -> None:
    save(path, 1)
    io = WholeFileCheckpointIO(compact=True, max_file_bytes=LIMIT)
    io.save_checkpoint({**checkpoint(2), "global_step": 2}, f"file://{tmp_path}/there.ckpt")
    assert parts_beside(tmp_path / "there.ckpt") == []
    is_of(tmp_path / "there.ckpt", 2)
    with pytest.raises(PartError, match=r"read from local folders alone\. Copy all of its files to one"):
        io.load_checkpoint(f"file://{path}")
    io.remove_checkpoint(f"file://{tmp_path}/there.ckpt")
    assert not (tmp_path / "there.ckpt").exists()
