"""Numbers of things in words."""

from __future__ import annotations

__all__ = ["counted", "ordinal"]


def counted(number: int, what: str) -> str:
    """Return a number of things as a person would say it, for a word that takes an s.

    >>> counted(1, "epoch"), counted(18, "epoch"), counted(0, "run")
    ('1 epoch', '18 epochs', '0 runs')
    """
    return f"{number} {what}" + ("" if number == 1 else "s")


def ordinal(number: int) -> str:
    """Return which one it is of several, the first of which is 1.

    >>> [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '21st', '102nd', '111th']
    """
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
