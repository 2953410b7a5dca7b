"""Values as Hydra's command line reads them back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["in_quotes", "written"]

# Text that Hydra takes without quotes for the same text, not for a number; and words that it takes for something else.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/.:-]*")
_WORDS = ("null", "true", "false", "inf", "nan")


def in_quotes(text: str) -> str:
    r"""Return text in quotes, in which a backslash stands for itself unless a quote follows it.

    >>> print(in_quotes(r"it's"), in_quotes(r"a\b"))
    'it\'s' 'a\b'
    """
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), text) + "'"


def written(value: Any) -> str:
    """Return a value as an override has it after the ``=``.

    >>> written({"restart_at": [0.5], "name": "übung"})
    "{restart_at:[0.5],name:'übung'}"
    """
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else in_quotes(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{written(key)}:{written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)
