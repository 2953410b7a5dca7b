"""Checkpoints that are written while training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_sparse_rnn.checkpoints import WholeFileCheckpointIO

__all__ = ["BackgroundCheckpointIO"]


class BackgroundCheckpointIO(WholeFileCheckpointIO):
    """Copies a checkpoint to the CPU's memory, and lets another thread write the file.

    For training on a GPU, whose epoch may take no longer than writing a file and waiting for the disk. Files are
    written as :class:`WholeFileCheckpointIO` writes them, in the order in which they were saved, and are there when the
    Trainer has ended or reads one. In memory there is at most one copy a file.

    Raises:
        OSError: at the next checkpoint or at the Trainer's end, if one could not be written.
    """

    def __init__(self) -> None:
        self._writer: ThreadPoolExecutor | None = None
        self._waiting: dict[str, Future[None]] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        for name, writing in list(self._waiting.items()):
            if writing.done() or name == str(path):
                self._wait_for(name)
        copied = _on_cpu(checkpoint)
        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._waiting[str(path)] = self._writer.submit(super().save_checkpoint, copied, path, storage_options)

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        self._wait()
        loaded: dict[str, Any] = super().load_checkpoint(path, *args, **options)
        return loaded

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

    def _wait(self) -> None:
        for name in list(self._waiting):
            self._wait_for(name)

    def _wait_for(self, name: str) -> None:
        self._waiting.pop(name).result()


def _on_cpu(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that later training does not change. Tensors that share memory share it there too."""
    storages: dict[tuple[torch.device, int], torch.UntypedStorage] = {}

    def copy(tensor: Tensor) -> Tensor:
        if tensor.layout != torch.strided:
            return tensor.detach().to("cpu", copy=True)
        storage = tensor.untyped_storage()
        key = (storage.device, storage.data_ptr())
        if key not in storages:
            storages[key] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
        shared = torch.empty(0, dtype=tensor.dtype)
        return shared.set_(storages[key], tensor.storage_offset(), tensor.size(), tensor.stride())

    copied: dict[str, Any] = apply_to_collection(checkpoint, Tensor, copy)
    return copied
