"""Hides messages of the frameworks that a user of the commands cannot act on."""

from __future__ import annotations

import logging
import warnings

__all__ = ["quiet"]

_WARNINGS = (
    # A run that is resumed finds its own checkpoints and logs.
    r"(Checkpoint|Experiment logs) directory .* exists and is not empty",
    # Lightning's own use of torch.
    r".*isinstance\(treespec, LeafSpec\).* is deprecated",
    r"torch\.distributed\.nn\.functional\.all_gather is deprecated",
    r"You are using `torch\.load` with `weights_only=False`",  # before torch 2.6
)
_MESSAGES = (
    "Tip:",
    "TPU available",
    "GPU available",
    "Restoring states",
    "Loaded model weights",
    "Restored all states",
    "torchvision is not installed",  # torch, of every ONNX export
)
_LOGGERS = ("pytorch_lightning.utilities.rank_zero", "torch.onnx._internal.exporter._registration")


def quiet() -> None:
    """Hide them for the rest of the process."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_of_interest)


def _of_interest(record: logging.LogRecord) -> bool:
    return not any(part in record.getMessage() for part in _MESSAGES)
