"""Files that are either whole or not there."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from lightning_sparse_rnn.utilities.whole_files import (
    replacing,
    sync_folder,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


@contextmanager
def small_disk() -> Iterator[None]:
    """Let no file grow past 100,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path, part: Path | None, error: BaseException) -> None:
    with replacing(path, part) as file:
        file.write(b"ne")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("part", [None, "file.part"])
def test_a_block_that_raises_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: type[BaseException], part: str | None
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error, match="half"):
        write_half(path, tmp_path / part if part else None, error("half"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as one:
        one.write(b"one, ")
        with replacing(path) as other:
            other.write(b"other")
        one.write(b"whole")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one, whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_of_a_given_name_is_written_over(tmp_path: Path) -> None:
    path, part = tmp_path / "file", tmp_path / "file.part"
    part.write_bytes(b"what a process that was killed left")
    with replacing(path, part) as file:
        file.write(b"new")
        file.flush()
        assert part.read_bytes() == b"new"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_on_the_disk_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "file", []

    def sync(descriptor: int) -> None:
        assert not path.exists()
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    with replacing(path, durable=True) as file:
        file.write(b"new")
    assert synced == [3]
    assert path.read_bytes() == b"new"


def torch_writes(file: BinaryIO) -> None:
    torch.save(torch.zeros(100_000), file)


def numpy_writes(file: BinaryIO) -> None:
    np.savez(file, zeros=np.zeros(100_000))


@pytest.mark.parametrize("write", [torch_writes, numpy_writes])
def test_a_full_disk_is_an_os_error_whoever_writes(tmp_path: Path, write) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with small_disk(), pytest.raises(OSError, match="File too large"), replacing(path) as file:
        write(file)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), replacing(tmp_path / "file"):
        raise RuntimeError("mine")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no folder" / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_bytes(tmp_path / "bytes", b"\x00\xff")
    write_text(tmp_path / "text", "é\n")
    write_json(tmp_path / "json", {"a": [1, None]})
    write_csv(tmp_path / "csv", ("a", "b"), [{"a": 1}, {"a": "x,y", "b": 2.5}])
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_bytes() == "é\n".encode()
    assert json.loads((tmp_path / "json").read_text()) == {"a": [1, None]}
    assert (tmp_path / "csv").read_bytes() == b'a,b\n1,\n"x,y",2.5\n'
    assert len(list(tmp_path.iterdir())) == 4


def test_folders_that_a_file_system_does_not_wait_for_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = errno.EINVAL

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", fail)
    sync_folder(tmp_path)
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync_folder(tmp_path)
