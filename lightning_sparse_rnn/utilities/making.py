"""Objects from configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

__all__ = ["make"]


def make(config: Mapping[Any, Any], *args: Any, **more: Any) -> Any:
    """Make the object that a config names by ``_target_``, with its arguments and these.

    Where the config has dicts and lists the object gets Python's own: other libraries know no others.

    >>> make({"_target_": "fractions.Fraction"}, 1, denominator=3)
    Fraction(1, 3)
    """
    return instantiate(config, *args, **more, _convert_="all")
