"""Where what can be made or downloaded again is kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return this user's folder for downloads, tokenised text and built kernels; it need not exist yet.

    ``LIGHTNING_SPARSE_RNN_CACHE`` names another one than the system's usual folder.
    """
    given = os.environ.get("LIGHTNING_SPARSE_RNN_CACHE")
    if given:
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "lightning_sparse_rnn" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "lightning_sparse_rnn"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "lightning_sparse_rnn"
