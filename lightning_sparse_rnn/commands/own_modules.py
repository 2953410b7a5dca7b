"""Modules of the user's own: rules, networks and callbacks in the folder where a command is started."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["import_from_here"]


def import_from_here() -> None:
    """Let import paths name what lies in the present folder, after all that is installed."""
    sys.path.append(str(Path.cwd()))
