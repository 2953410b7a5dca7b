"""What our callbacks have in common: both names of Lightning know them, and copies leave the module behind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytorch_lightning
from pytorch_lightning.callbacks import ModelCheckpoint as _ModelCheckpoint

__all__ = ["Callback", "ModelCheckpoint"]


def _of_every_lightning(name: str) -> tuple[type, ...]:
    """Return the class of that name of ``pytorch_lightning``, and of ``lightning.pytorch`` where that is imported.

    Both are there at once in some environments, with classes of their own. A Trainer takes any callback, but the
    command line interface, and a Trainer that looks for its checkpoints, ask of which class it is.
    """
    found = [getattr(pytorch_lightning.callbacks, name)]
    other = sys.modules.get("lightning.pytorch.callbacks")
    return (*found, getattr(other, name)) if other is not None else tuple(found)


if TYPE_CHECKING:
    _Callback = pytorch_lightning.Callback
    ModelCheckpoint = _ModelCheckpoint
else:
    _Callback = type("_Callback", _of_every_lightning("Callback"), {})
    ModelCheckpoint = type("ModelCheckpoint", _of_every_lightning("ModelCheckpoint"), {})


class Callback(_Callback):
    """A callback of every Lightning that was imported before it."""

    def __getstate__(self) -> dict[str, Any]:
        # A copy does not drag along the module, whose logging methods Lightning attaches to its callbacks.
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict")}
