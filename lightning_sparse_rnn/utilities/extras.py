"""What of the package needs more than its bare installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["extra"]


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Say which of the package's extras ``what`` needs, if an import in the block finds a module missing.

    Raises:
        ModuleNotFoundError: one is; the message has the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{what} needs {error.name}. Install it with: pip install 'lightning-sparse-rnn[{name}]'", name=error.name
        ) from error
