"""Runs of `sparse-rnn-train`, each in a process of its own, several at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lightning_sparse_rnn.runs.jobs import RunIsElsewhere, worked_on

__all__ = ["COMMAND", "make_runs"]

COMMAND = (sys.executable, "-m", "lightning_sparse_rnn.commands.train")


def make_runs(runs: Mapping[Path, Sequence[str]], processes: int, ended: Callable[[Path], None]) -> list[Path]:
    """Make runs, in this order, so many at a time; one that fails does not end the others.

    Runs that are finished are not made again, unfinished ones go on, and those that another command is working on are
    left to it. Several at a time have the processor's cores in equal shares, unless ``OMP_NUM_THREADS`` says otherwise,
    and leave what they say in a file beside their folder.

    Args:
        runs: the overrides of each, by its folder.
        processes: how many at a time.
        ended: called with each folder whose run is finished, in this thread.

    Returns:
        The folders of the runs that failed.
    """
    failed = []
    with ThreadPoolExecutor(processes) as pool:
        waiting = {pool.submit(_make, folder, given, processes): folder for folder, given in runs.items()}
        try:
            for run in as_completed(waiting):
                folder = waiting[run]
                if run.result() == "finished":
                    ended(folder)
                elif run.result() == "failed":
                    failed.append(folder)
        except BaseException:  # Ctrl-C, which the runs have heard as well
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def _make(folder: Path, overrides: Sequence[str], processes: int) -> str:
    """Make one run, and return how it ended."""
    log = folder.with_name(f"{folder.name}.log")
    if _is_elsewhere(folder):
        ended = "elsewhere"
    elif _train(folder, overrides, processes, log) == 0:
        ended = "finished"
    else:  # another command may have been faster
        ended = "elsewhere" if _is_elsewhere(folder) else "failed"
    told = {"elsewhere": "another command is working on it", "failed": f"not finished, see {log}"}
    if processes > 1:
        print(f"{folder.name}: {told.get(ended, ended)}", flush=True)
    return ended


def _train(folder: Path, overrides: Sequence[str], processes: int, log: Path) -> int:
    """Return the exit code."""
    command = [*COMMAND, f"hydra.run.dir={folder}", *overrides]
    if processes == 1:
        return subprocess.run(command).returncode
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    with log.open("a", encoding="utf-8") as file:
        return subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode


def _is_elsewhere(folder: Path) -> bool:
    """Whether another process is working on the run."""
    try:
        with worked_on(folder):
            return False
    except RunIsElsewhere:
        return True
