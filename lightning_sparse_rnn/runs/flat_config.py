"""Nested configs as flat lists of dotted keys, so that two can be compared line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["differences", "flat"]


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a nested config, each with its dotted key: ``{"a": {"b": 1}}`` gives ``("a.b", 1)``.

    An empty group is a value, so that it is not lost. Every key gets ``prefix`` before it.
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the values in which two configs differ, one line each: ``key: old value, now new value``."""
    before, after = dict(flat(old)), dict(flat(new))
    return [
        f"{key}: {before.get(key, 'absent')}, now {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, "absent") != after.get(key, "absent")
    ]
