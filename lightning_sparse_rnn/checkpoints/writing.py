"""How checkpoints are written: whole or not at all, and on a GPU while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from lightning_sparse_rnn.checkpoints.packing import pack, unpack
from lightning_sparse_rnn.checkpoints.part_files import part_path, remove_parts_of_none, with_parts
from lightning_sparse_rnn.checkpoints.parts import LEAST_LIMIT, Part, split
from lightning_sparse_rnn.checkpoints.snapshots import snapshot
from lightning_sparse_rnn.utilities.whole_files import replacing, sync_folder

__all__ = ["BackgroundCheckpointIO", "WholeFileCheckpointIO"]


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that a file has its old content or all of the new, whenever the process or machine dies.

    Lightning writes to the system's folder for temporary files and moves the file from there, which is a copy where
    that folder is on another disk: a run killed meanwhile has lost the old checkpoint and not got the new one. This
    class writes beside the checkpoint, under its name with ``.part`` appended, and waits for the disk. Checkpoints that
    are not local files are written Lightning's way. Use it with ``Trainer(plugins=[WholeFileCheckpointIO()])``.

    Args:
        compact: write live values and one bit per position instead of dense tensors, which come back bit for bit: a
            third of the size of a model at sparsity 0.67. Takes 1 s per 30 million weights. Such files are read by this
            class, whatever its ``compact`` says, by ``load_checkpoint`` and by the commands; to Lightning and torch
            alone they have no weights.
        max_file_bytes: a compact checkpoint that would be larger has parts of at most so many bytes in files of their
            own, named ``last.ckpt.<token>.1of3`` and so on, which belong beside it wherever it is copied; its own file
            has what is small. It takes the old one's place when all its parts are on the disk, and the old one's parts
            are removed afterwards. Checkpoints that are not local files are one file always.

    Raises:
        ValueError: ``max_file_bytes`` is too small for a part.
    """

    def __init__(self, compact: bool = False, max_file_bytes: int = 100_000_000) -> None:
        if max_file_bytes < LEAST_LIMIT:
            raise ValueError(f"Expected max_file_bytes of at least {LEAST_LIMIT}, got {max_file_bytes}.")
        self.compact = compact
        self.max_file_bytes = max_file_bytes

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if self.compact:
            checkpoint = pack(checkpoint)
        if storage_options is not None or _is_elsewhere(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        entry, parts = split(checkpoint, self.max_file_bytes) if self.compact else (checkpoint, [])
        self._save_here(entry, parts, Path(path))

    def _save_here(self, entry: dict[str, Any], parts: list[Part], path: Path) -> None:
        """Write a local checkpoint, its parts first: whichever stands in its place has all of its own at any moment."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            for part in parts:
                self.write(partial(torch.save, part.content()), part_path(path, part.token, part.index, len(parts)))
            if parts:
                sync_folder(path.parent)
            self.write(partial(torch.save, entry), path)
        finally:
            remove_parts_of_none(path)

    def write(self, content: Callable[[BinaryIO], Any], path: Path) -> None:
        """Write a local file, whole or not at all, by calling ``content`` with it."""
        # A name that stays the same: what a killed process leaves is written over, and does not fill the disk.
        with replacing(path, path.with_name(f"{path.name}.part"), durable=True) as file:
            content(file)

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint, compact or not, as Lightning does.

        Raises:
            ValueError: a compact checkpoint is damaged, or lacks a part.
        """
        return unpack(with_parts(super().load_checkpoint(path, *args, **options), path))

    def remove_checkpoint(self, path: str | Path) -> None:
        super().remove_checkpoint(path)
        if not _is_elsewhere(path) and Path(path).parent.is_dir():
            remove_parts_of_none(Path(path))


class BackgroundCheckpointIO(WholeFileCheckpointIO):
    """Copies a checkpoint to the CPU's memory, and lets another thread write the file.

    For training on a GPU, whose epoch may take no longer than writing a file and waiting for the disk. Files are
    written as :class:`WholeFileCheckpointIO` writes them, in the order in which they were saved, and are there when the
    Trainer has ended or reads one; one that is saved afterwards, when the process ends. What waits to be written gives
    way to what is saved later under its name, so that training never waits for a slow disk. In memory there are at most
    two copies a file, one that is being written and one that waits. Where two files would get one name, Lightning gives
    the second another, but only if it finds the first: let the names that a `ModelCheckpoint` makes differ.

    Args:
        compact, max_file_bytes: as for :class:`WholeFileCheckpointIO`.

    Raises:
        OSError: at the next checkpoint or at the Trainer's end, if one could not be written.
    """

    def __init__(self, compact: bool = False, max_file_bytes: int = 100_000_000) -> None:
        super().__init__(compact, max_file_bytes)
        self._writer: ThreadPoolExecutor | None = None
        self._writings: list[tuple[str, Future[None]]] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if storage_options is not None or _is_elsewhere(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        self._wait(only_ended=True)
        saved = snapshot(checkpoint)
        self._writings = [
            (name, writing) for name, writing in self._writings if name != str(path) or not writing.cancel()
        ]
        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        writing = self._writer.submit(super().save_checkpoint, saved, path)
        writing.add_done_callback(_tell)
        self._writings.append((str(path), writing))

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        self._wait()
        return super().load_checkpoint(path, *args, **options)

    def remove_checkpoint(self, path: str | Path) -> None:
        self._wait()
        super().remove_checkpoint(path)

    def teardown(self) -> None:
        try:
            self._wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None
        super().teardown()

    def _wait(self, only_ended: bool = False) -> None:
        """Wait for all files; one that could not be written is told of once, whatever became of others."""
        ended = [writing for _, writing in self._writings if not only_ended or writing.done()]
        self._writings = [(name, writing) for name, writing in self._writings if writing not in ended]
        wait(ended)
        for writing in ended:
            writing.result()


def _is_elsewhere(path: str | Path) -> bool:
    return "://" in str(path)


def _tell(writing: Future[None]) -> None:
    # At once, and even if nothing is saved or read any more.
    if not writing.cancelled() and (error := writing.exception()):
        rank_zero_warn(f"A checkpoint could not be written: {error}")
