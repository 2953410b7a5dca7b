"""Runs a function in several processes that can train together on one machine's CPU, and collects what it returns."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_SLOW_TO_IMPORT = ["pytorch_lightning", "lightning_sparse_rnn.models", "lightning_sparse_rnn.data", "pytest"]


def in_processes(count: int, function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """Call ``function(rank, folder, *args)`` in ``count`` processes and return their results by rank.

    Lightning finds in each process's environment that the others are there: ``strategy="ddp"`` starts none of its own.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_SLOW_TO_IMPORT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        context.Process(target=_process, args=(rank, count, port, function, folder, args)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    for process in processes:
        process.kill()  # which waits for one that has failed
        process.join()
    failures = [path.read_text() for path in sorted(folder.glob("failure-*.txt"))]
    assert not failures, "\n".join(failures)
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(count)]


def _process(rank: int, count: int, port: int, function: Callable[..., Any], folder: Path, args: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), NODE_RANK="0", LOCAL_RANK=str(rank), WORLD_SIZE=str(count)
    )
    try:
        torch.save(function(rank, folder, *args), folder / f"result-{rank}.pt")
    except BaseException:
        (folder / f"failure-{rank}.txt").write_text(f"Process {rank}:\n{traceback.format_exc()}")
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
