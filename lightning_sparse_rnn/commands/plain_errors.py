"""Shows a user's error as one message instead of a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_sparse_rnn.runs.jobs import RunInterrupted

__all__ = ["interruptible", "told_plainly", "whole_imports"]

_MISTAKES = (ValueError, OSError, FloatingPointError, ModuleNotFoundError)
#: Hydra's own switch.
_EVERYTHING = "HYDRA_FULL_ERROR"
_INTERRUPTED = 130  # what shells say of a process that Ctrl-C has ended


@contextmanager
def told_plainly(command: str) -> Iterator[None]:
    """End ``command`` with the message alone of an error that options, files, the network or divergence cause.

    Other errors pass as they are, and with ``HYDRA_FULL_ERROR=1`` all do.

    Raises:
        SystemExit: there was such an error.
    """
    try:
        yield
    except Exception as error:
        # Here, since a command's help should not wait for it.
        from hydra.errors import InstantiationException
        from omegaconf.errors import MissingMandatoryValue

        from lightning_sparse_rnn.commands.unknown_options import of_unknown_option

        cause: BaseException = error
        unknown = None
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            unknown = of_unknown_option(cause)
            cause = cause.__cause__
        # An option that is not there comes as a TypeError of what Hydra was to call, a class that is not there as an
        # ImportError; others would be ours.
        told = (
            *_MISTAKES,
            MissingMandatoryValue,
            *_of_lightning(),
            *((TypeError, ImportError) if cause is not error else ()),
        )
        if os.environ.get(_EVERYTHING) == "1" or not isinstance(cause, told):
            raise
        told_of: object = unknown or cause
        if isinstance(cause, MissingMandatoryValue):
            told_of = f"Expected a value for {cause.full_key}, got none."
        raise SystemExit(f"{command}: {told_of}\n({_EVERYTHING}=1 shows where in the program this came up.)") from error


@contextmanager
def interruptible() -> Iterator[None]:
    """End with one line and status 130 where someone interrupts what is in the block, or in the function it decorates.

    Raises:
        SystemExit: someone pressed Ctrl-C, or sent SIGTERM to a run.
    """
    try:
        yield
        return
    except KeyboardInterrupt:
        said = "Interrupted."
    except RunInterrupted as ended:
        said = str(ended)
    except SystemExit as ended:
        if not isinstance(ended.__context__, KeyboardInterrupt):
            raise
        said = "Interrupted."  # Lightning has made this of it, with another status
    print(said, file=sys.stderr)
    raise SystemExit(_INTERRUPTED)


@contextmanager
def whole_imports() -> Iterator[None]:
    """Let the imports in the block end before a Ctrl-C counts.

    Some packages take an exception at their import for something else, and go on without what they wanted.

    Raises:
        KeyboardInterrupt: after the block, if someone has pressed Ctrl-C in it.
    """
    there = signal.getsignal(signal.SIGINT)
    if there is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, there)
        if pressed:
            raise KeyboardInterrupt


def _of_lightning() -> tuple[type[Exception], ...]:
    """Lightning's error of options that do not go together; none if Lightning has not been imported, which is slow."""
    module = sys.modules.get("lightning_fabric.utilities.exceptions")
    return () if module is None else (module.MisconfigurationException,)
