"""Lengths of time in words."""

from __future__ import annotations

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """Return a length of time as a person would say it, in its two largest units.

    >>> duration(42.4), duration(200), duration(8000), duration(200_000)
    ('42 s', '3 min 20 s', '2 h 13 min', '2 d 7 h')
    """
    whole = max(0, round(seconds))
    parts: list[tuple[str, int]] = []
    for name, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, whole = divmod(whole, length)
        if number or (name == "s" and not parts):
            parts.append((name, number))
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(f"{number} {name}" for name, number in parts)
