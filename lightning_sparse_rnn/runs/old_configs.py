"""Configs of runs that were made when some values had other addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sparse_rnn.runs.paths import with_one_path
from lightning_sparse_rnn.runs.shown import without_shown
from lightning_sparse_rnn.utilities.epochs import epoch_at

__all__ = ["MOVED", "same_runs", "up_to_date", "without_usual_options"]

#: Where values went that the command line could change under these names.
MOVED = {
    "sntasgd.lr": "optimizer.lr",
    "sntasgd.weight_decay": "optimizer.weight_decay",
    "sntasgd.nonmono": "optimizer.nonmono",
    "sntasgd.restart_epochs": "callbacks.averaging.restart_at",
    "averaging": "callbacks.averaging",
    "model.optimizer": "optimizer",
}


def up_to_date(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config with every value where it stands today."""
    now = dict(config)
    now.pop("sntasgd", None)
    if "model" in now:
        now["model"] = {key: value for key, value in _group(now["model"]).items() if key != "optimizer"}
    if "averaging" in now:
        now["callbacks"] = {"averaging": now.pop("averaging")}
    return now


def without_usual_options(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config without those options that stand at what was usual before there was a choice.

    So models and networks of one's own need not take them.
    """
    bare = {name: value for name, value in model.items() if (name, value) not in _USUAL_MODEL.items()}
    if isinstance(network := bare.get("network"), Mapping):
        bare["network"] = {
            name: value for name, value in network.items() if (name, value) not in _USUAL_NETWORK.items()
        }
    return bare


def same_runs(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in a form that is equal for two runs exactly if they train alike.

    It is up to date, shares of ``max_epochs`` are epochs, paths are written in one way, the callbacks that every run
    needs are there, and what a run shows or logs is left out, as is what it is called and where its files are.
    """
    now = with_one_path(without_shown(up_to_date(config)))
    trainer, callbacks = _group(now.get("trainer")), _group(now.get("callbacks"))
    for name, always in _ALWAYS.items():
        callbacks.setdefault(name, always)
    callbacks["averaging"] = _in_epochs(callbacks.get("averaging"), trainer.get("max_epochs"))
    data = {**_PLAIN_WORDS, **_group(now.get("data"))}
    method = _group(now.get("method"))
    if "_target_" in method:
        method = {**_PLAIN_TOPOLOGY, **method}
    now["model"] = without_usual_options(_group(now.get("model")))
    now.pop("initial_scale", None)  # what a sparse method has taken of it stands in the method
    if now.get("init_from") is None:
        now.pop("init_from", None)
    return {**now, "data": data, "method": method, "trainer": trainer, "callbacks": callbacks}


_RUNS = "lightning_sparse_rnn.runs"
# How text was read before there was a choice.
_PLAIN_WORDS = {"tokens": "words", "min_count": 1, "max_vocabulary": None, "shares": None, "shuffle_parts": None}
# What models and networks did. Graphs and fused cells are not shown to give the same bits, and so make other runs.
_USUAL_MODEL = {"cuda_graphs": True}
_USUAL_NETWORK = {"fused_cells": False}
# How topologies were made before there was a choice.
_PLAIN_TOPOLOGY = {"gates": None, "initial_scale": "none"}
_ALWAYS = {
    "record": {"_target_": f"{_RUNS}.record.RunRecord"},
    "best": {"_target_": f"{_RUNS}.checkpoint_callbacks.BestCheckpoint", "monitor": "val_loss"},
    "last": {"_target_": f"{_RUNS}.checkpoint_callbacks.LastCheckpoint"},
}


def _group(given: Any) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {}


def _in_epochs(averaging: Any, max_epochs: Any) -> dict[str, Any] | None:
    if not isinstance(averaging, Mapping):
        return None
    now = dict(averaging)
    shares, epochs = now.pop("restart_at", None) or [], now.pop("restart_epochs", None) or []
    if shares and isinstance(max_epochs, int) and max_epochs > 0:
        epochs, shares = [*epochs, *(epoch_at(share, max_epochs) for share in shares)], []
    return {**now, "restart_at": list(shares), "restart_epochs": sorted(epochs)}
