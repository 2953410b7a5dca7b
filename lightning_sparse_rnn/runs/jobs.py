"""Many runs from one command: one that fails does not end the others, and several processes share the work."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # on Windows, where processes do not notice each other
    fcntl = None  # type: ignore[assignment]

__all__ = ["Jobs", "RunInterrupted", "RunIsElsewhere", "worked_on"]

_LOCK = ".lock"


class RunIsElsewhere(SystemExit):
    """Another process is working on the run."""


class RunInterrupted(SystemExit):
    """Someone wants it to end: the run, and all that would follow."""


@contextmanager
def worked_on(folder: Path) -> Iterator[None]:
    """Keep other processes from a run's folder.

    The system releases the lock when the process ends, however it does. The lock file is separate and never deleted: if
    it were replaced, two processes could each lock a different file of the same name.

    Raises:
        RunIsElsewhere: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as file:
        if not _lock(file):
            raise RunIsElsewhere(f"Another process is working on the run in {folder}.")
        yield


def _lock(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@dataclass
class Jobs:
    """What has become of a command's runs."""

    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        """Note how the block ends and go on, whatever happens in it, unless someone interrupts it."""
        try:
            yield
        except (RunInterrupted, KeyboardInterrupt):
            raise
        except RunIsElsewhere as reason:
            print(reason, flush=True)
            self.elsewhere.append(name)
        except SystemExit as reason:
            self._fail(name, str(reason))
        except Exception:
            self._fail(name, traceback.format_exc())

    def _fail(self, name: str, reason: str) -> None:
        print(f"This run has failed, others go on: {name}\n{reason}", file=sys.stderr, flush=True)
        self.failed.append(name)

    def summary(self) -> str:
        """Say what there is left to do; nothing if all went well."""
        lines = []
        if self.elsewhere:
            lines += ["Other processes are working on:", *(f"  {name}" for name in self.elsewhere)]
        if self.failed:
            lines += ["These runs have failed:", *(f"  {name}" for name in self.failed)]
            lines.append("The same command tries them again, and none that is finished.")
        return "\n".join(lines)
