"""Lengths of time in words."""

from __future__ import annotations

__all__ = ["duration", "rough_duration"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# Up to how many seconds a guess is one of how many.
_STEPS = ((_MINUTE, 10), (10 * _MINUTE, _MINUTE), (_HOUR, 5 * _MINUTE), (6 * _HOUR, 15 * _MINUTE), (2 * _DAY, _HOUR))


def duration(seconds: float) -> str:
    """Return a length of time as a person would say it, in its two largest units.

    >>> duration(42.4), duration(200), duration(8000), duration(200_000)
    ('42 s', '3 min 20 s', '2 h 13 min', '2 d 7 h')
    """
    whole = max(0, round(seconds))
    parts: list[tuple[str, int]] = []
    for name, length in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE), ("s", 1)):
        number, whole = divmod(whole, length)
        if number or (name == "s" and not parts):
            parts.append((name, number))
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(f"{number} {name}" for name, number in parts)


def rough_duration(seconds: float) -> str:
    """Return a length of time that is guessed, in a number that claims no more than a guess can.

    >>> rough_duration(3), rough_duration(42.4), rough_duration(842), rough_duration(8000), rough_duration(200_000)
    ('a few seconds', 'about 40 s', 'about 15 min', 'about 2 h 15 min', 'about 2 d')
    """
    step = next((step for most, step in _STEPS if seconds < most), _DAY)
    rounded = round(seconds / step) * step
    return f"about {duration(rounded)}" if rounded > 0 else "a few seconds"
