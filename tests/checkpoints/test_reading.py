"""Checkpoint files are found again after a crash, and checked when they are read."""

from __future__ import annotations

import functools
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lightning_sparse_rnn.checkpoints.reading import find_last_good, load_checkpoint


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
