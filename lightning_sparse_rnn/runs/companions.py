"""How a run's callbacks find one another."""

from __future__ import annotations

from typing import TypeVar

from pytorch_lightning import Callback, Trainer

__all__ = ["companion"]

_Kind = TypeVar("_Kind", bound=Callback)


def companion(trainer: Trainer, kind: type[_Kind]) -> _Kind | None:
    """Return the Trainer's first callback of a class, or ``None`` if it has none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
