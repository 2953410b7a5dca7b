"""Many runs from one command: one that fails does not end the others, and several processes share the work."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from lightning_sparse_rnn.runs.folder import LOCK, RESULTS, remove_if_unused
from lightning_sparse_rnn.utilities.counting import counted
from lightning_sparse_rnn.utilities.durations import rough_duration
from lightning_sparse_rnn.utilities.whole_files import write_json

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Jobs", "RunInterrupted", "RunIsElsewhere", "worked_on"]

_VARIABLE, _RUNS = "SPARSE_RNN_JOBS", "SPARSE_RNN_RUNS"
# What systems say of a file that is on a disk without locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
# How the folders of commands begin, in which their jobs leave how they ended.
_FOLDER = ".jobs-"
_FINISHED, _FAILED, _ELSEWHERE = "finished", "failed", "elsewhere"


class RunIsElsewhere(SystemExit):
    """Another process is working on the run."""


class RunInterrupted(SystemExit):
    """Someone wants it to end: the run, and all that would follow."""


@contextmanager
def worked_on(folder: Path) -> Iterator[None]:
    """Keep other processes from a run's folder.

    The system releases the lock when the process ends, however it does. A folder in which the block leaves nothing is
    removed. Since another process may have opened the lock file before that, a lock counts only if the file is still
    the one of that name.

    Where there are no locks, on Windows and on some file systems of clusters, processes do not notice each other.

    Raises:
        RunIsElsewhere: another process has it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / LOCK).open("a")
        except FileNotFoundError:  # removed since
            continue
        with file:
            if not _lock(file):
                raise RunIsElsewhere(f"Another process is working on the run in {folder}.")
            if not _is_there(file, folder / LOCK):
                continue
            try:
                yield
            finally:
                remove_if_unused(folder)
            return


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one that has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[str]) -> bool:
    """Whether a file is locked for this process now, or cannot be locked for any."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Make a folder for the time of the block. The system sees to it that it is locked as long as this process lives.

    Its lock gets its name when it is locked already, so that no other process ever finds it open.
    """
    folder.mkdir(parents=True)
    try:
        with (folder / f"new{LOCK}").open("w", encoding="utf-8") as file:
            print(_machine(), file=file, flush=True)
            if fcntl is not None:
                _lock(file)
                (folder / f"new{LOCK}").replace(folder / LOCK)
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left_behind(folder: Path) -> bool:
    """Whether the process that :func:`_own` made a folder for has died without removing it, as by ``kill -9``.

    That is not known of processes of other machines, of which some file systems do not show the locks.
    """
    try:
        with (folder / LOCK).open("r+", encoding="utf-8") as file:
            return file.read().strip() == _machine() and _lock(file)
    except OSError:  # there is no lock, or it belongs to another user
        return False


def _clear_beside(own: Path) -> None:
    """Remove the folders that other commands have left behind."""
    if not _is_left_behind(own):  # it would seem to be where locks have no effect, and then that says nothing of others
        for other in filter(_is_left_behind, own.parent.glob(f"{_FOLDER}*")):
            shutil.rmtree(other, ignore_errors=True)


class Jobs:
    """What has become of a command's runs.

    Launchers of Hydra make runs in other processes, and on other machines: each leaves how it ended as a file in
    ``folder``, where the command that started them reads it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    @contextmanager
    def of_a_command(cls, output: Path, runs: int | None = None, several: bool = True) -> Iterator[Jobs]:
        """Yield the jobs of this command, known to all processes that it starts; their folder is below ``output``.

        Args:
            output: the folder of runs; if there is nothing in it in the end, and it was not there, it is removed.
            runs: how many there will be; ``None`` if nobody knows.
            several: whether the folder is needed. What other commands have left of theirs is removed then.
        """
        folder = (output / f"{_FOLDER}{secrets.token_hex(4)}").absolute()
        new = not output.exists()
        os.environ[_VARIABLE], os.environ[_RUNS] = str(folder), str(runs or "")
        try:
            with _own(folder) if several else nullcontext():
                if several:
                    _clear_beside(folder)
                yield cls(folder)
        finally:
            del os.environ[_VARIABLE], os.environ[_RUNS]
            if new:
                with suppress(OSError):
                    output.rmdir()

    @classmethod
    def around(cls) -> Jobs:
        """Return the jobs of the command that has started this process, or that this process is."""
        return cls(Path(os.environ[_VARIABLE]))

    @contextmanager
    def job(self, folder: Path) -> Iterator[None]:
        """Note how the block ends and go on, whatever happens in it, unless someone interrupts it; say how far all are.

        Args:
            folder: that of the run. One that has results had been finished before, and takes no time.
        """
        began, found = time.monotonic(), (folder / RESULTS).exists()
        try:
            yield
            self._note(folder, _FINISHED, seconds=None if found else time.monotonic() - began)
        except (RunInterrupted, KeyboardInterrupt):
            raise
        except RunIsElsewhere as reason:
            print(reason, flush=True)
            self._note(folder, _ELSEWHERE)
        except SystemExit as reason:
            self._fail(folder, str(reason))
        except Exception:
            self._fail(folder, traceback.format_exc())
        print(self.progress(), flush=True)

    @property
    def failed(self) -> list[str]:
        """The names of the runs that have failed so far."""
        return self._names(_FAILED)

    @property
    def elsewhere(self) -> list[str]:
        """The names of the runs that were left to other commands, and have no results yet."""
        return self._names(_ELSEWHERE)

    @property
    def finished(self) -> list[str]:
        """The names of the runs that have ended well, in other commands too."""
        return self._names(_FINISHED)

    def progress(self) -> str:
        """Say how many runs have ended, and how, and about how long the others will take."""
        notes, runs = self._notes(), os.environ.get(_RUNS)
        ended = f"{len(notes)} of {counted(int(runs), 'run')}" if runs else f"{counted(len(notes), 'run')} so far"
        counts = {"done": self.finished, "elsewhere": self.elsewhere, "failed": self.failed}
        how = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names or what == "done")
        took = [note["seconds"] for note in notes if note["seconds"] is not None]
        left = int(runs) - len(notes) if runs else 0
        if not took or left < 1:
            return f"[{ended}] {how}"
        at_once = len({note["process"] for note in notes})
        # Other commands will take as many of those left as they took of those so far.
        elsewhere = sum(note["end"] == _ELSEWHERE for note in notes)
        seconds = left * sum(took) / (len(took) + elsewhere) / at_once
        return f"[{ended}] {how}; {rough_duration(seconds)} left"

    def summary(self) -> str:
        """Say what there is left to do, and what other processes have done; nothing if all went well in this one."""
        lines = []
        done = [note["name"] for note in self._notes() if note["end"] == _FINISHED and note["process"] != _process()]
        if done:
            lines += ["These runs have finished:", *(f"  {name}" for name in done)]
        if self.elsewhere:
            lines += ["Left to other processes, and not finished yet:", *(f"  {name}" for name in self.elsewhere)]
        failed = [note for note in self._notes() if note["end"] == _FAILED]
        if failed:
            lines.append("These runs have failed:")
            for note in failed:
                # What another process has said is not on this screen.
                lines.append(f"  {note['name']}" + ("" if note["process"] == _process() else f": {note['reason']}"))
            lines.append("The same command tries them again, and none that is finished.")
        return "\n".join(lines)

    def _fail(self, folder: Path, reason: str) -> None:
        print(f"This run has failed, others go on: {folder.name}\n{reason}", file=sys.stderr, flush=True)
        told = [line for line in reason.splitlines() if line.strip()] or [""]
        self._note(folder, _FAILED, told[-1] if told[0].startswith("Traceback") else told[0])

    def _note(self, run: Path, end: str, reason: str = "", seconds: float | None = None) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        note = {"name": run.name, "end": end, "reason": reason, "process": _process(), "seconds": seconds}
        write_json(self._folder / f"{secrets.token_hex(8)}.json", {**note, "results": str((run / RESULTS).absolute())})

    def _names(self, end: str) -> list[str]:
        return [note["name"] for note in self._notes() if _end(note) == end]

    def _notes(self) -> list[dict[str, Any]]:
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in self._folder.glob("[!.]*.json")]
        return sorted(notes, key=lambda note: str(note["name"]))


def _end(note: dict[str, Any]) -> str:
    """How a run has ended by now: another command may have finished it since it was left to that."""
    return _FINISHED if note["end"] == _ELSEWHERE and Path(note["results"]).exists() else str(note["end"])


def _process() -> str:
    return f"{_machine()} {os.getpid()}"


def _machine() -> str:
    return os.uname().nodename if hasattr(os, "uname") else ""
