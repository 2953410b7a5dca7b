"""Options that are paths: one path is one value, however it is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PATHS", "one_path", "with_one_path"]

#: The options that are paths and make another run; where a run goes and keeps its files makes none.
PATHS = ("init_from", "data.root")


def one_path(given: str) -> str:
    """Return a path without what means nothing in it.

    ``..`` stays, and an absolute path stays one: whether it is the same as another depends on links and on the working
    directory.

    >>> one_path("./runs//a/"), one_path("/runs/a/."), one_path("../a"), one_path("")
    ('runs/a', '/runs/a', '../a', '')
    """
    return Path(given).as_posix() if given else given


def with_one_path(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config in which each of ``PATHS`` is written in one way; ``prefix`` stands before its keys."""
    now = dict(config)
    for key, value in now.items():
        if isinstance(value, Mapping):
            now[key] = with_one_path(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" in PATHS and isinstance(value, str):
            now[key] = one_path(value)
    return now
