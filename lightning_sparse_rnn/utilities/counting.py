"""Numbers of things in words."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, what: str) -> str:
    """Return a number of things as a person would say it, for a word that takes an s.

    >>> counted(1, "epoch"), counted(18, "epoch"), counted(0, "run")
    ('1 epoch', '18 epochs', '0 runs')
    """
    return f"{number} {what}" + ("" if number == 1 else "s")
