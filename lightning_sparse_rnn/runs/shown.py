"""What a run shows and logs, and where its files are: no part of what it computes, nor of what tells runs apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ELSEWHERE", "SHOWN_BY_TRAINER", "is_shown", "without_shown"]

#: What says where a run goes, what it is called, where it logs, and in which files it keeps what it needs.
ELSEWHERE = ("output", "name", "logger", "data.cache_dir", "compact_checkpoints")

#: Options of a Trainer that change nothing but what is to be seen of it.
SHOWN_BY_TRAINER = ("enable_progress_bar", "enable_model_summary", "log_every_n_steps", "profiler")
# Callbacks that look on, by the names of their classes.
_LOOK_ON = (
    "DeviceStatsMonitor",
    "LearningRateMonitor",
    "ModelSummary",
    "PerplexityProgressBar",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
)


def is_shown(name: str, target: Any) -> bool:
    """Whether a callback, by its name in ``callbacks`` and its class's import path, only looks on."""
    return name == "progress" or str(target).rpartition(".")[2] in _LOOK_ON


def without_shown(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config without what only shows or logs something, or says where files are."""
    now = {key: value for key, value in config.items() if key not in ELSEWHERE}
    if isinstance(now.get("data"), Mapping):
        now["data"] = {key: value for key, value in now["data"].items() if f"data.{key}" not in ELSEWHERE}
    if isinstance(now.get("trainer"), Mapping):
        now["trainer"] = {key: value for key, value in now["trainer"].items() if key not in SHOWN_BY_TRAINER}
    if isinstance(now.get("callbacks"), Mapping):
        now["callbacks"] = {
            name: given
            for name, given in now["callbacks"].items()
            if not is_shown(name, given.get("_target_") if isinstance(given, Mapping) else None)
        }
    return now
