"""Values as Hydra's command line reads them back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["in_quotes", "written"]

# Text that Hydra takes without quotes for the same text, not for a number; and words that it takes for something else.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/.:-]*")
_WORDS = ("null", "true", "false", "inf", "infinity", "nan")
# Keys of dicts, which Hydra takes without quotes alone.
_KEY = re.compile(r"[A-Za-z*$@%?|/.+\-][\w*$@%?|/.+\- ]*(?<! )")


def in_quotes(text: str) -> str:
    r"""Return text in quotes, in which a backslash stands for itself unless a quote follows it.

    >>> print(in_quotes(r"it's"), in_quotes(r"a\b"))
    'it\'s' 'a\b'
    """
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), text) + "'"


def written(value: Any) -> str:
    """Return a value as an override has it after the ``=``.

    >>> written({"restart_at": [0.5], "name": "übung"})
    "{restart_at:[0.5],name:'übung'}"

    Raises:
        ValueError: Hydra cannot read it from a command line: a key of a dict is not of letters, digits and a few marks.
    """
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else in_quotes(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        return json.dumps(key)
    if not _KEY.fullmatch(key) or key.lower() in _WORDS:
        raise ValueError(f"No command line says {key!r} as a key.")
    return key
