"""Configs of runs from when values had other addresses: the same run is the same run, and another is another."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import yaml
from files_of_before import BEFORE, COMMAND, RESTARTS
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.flat_config import differences
from lightning_sparse_rnn.runs.naming import run_name
from lightning_sparse_rnn.runs.old_configs import (
    _USUAL_MODEL,
    _USUAL_NETWORK,
    same_runs,
    up_to_date,
    without_usual_options,
)
from lightning_sparse_rnn.runs.paths import PATHS

OLD = yaml.safe_load((BEFORE / "finished" / "config.yaml").read_text())


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        found: Any = OmegaConf.to_container(compose("train", [*COMMAND, *overrides]), resolve=True)
    return {**found, "chosen": OLD["chosen"]}


def test_every_value_is_found_where_it_stands_today() -> None:
    now = up_to_date(OLD)
    assert now["optimizer"] == OLD["optimizer"]
    assert now["callbacks"]["averaging"]["restart_epochs"] == [2]
    assert "sntasgd" not in now
    assert "averaging" not in now
    assert "optimizer" not in now["model"]
    assert up_to_date(now) == now


@pytest.mark.parametrize("restarts", [RESTARTS, "+callbacks.averaging.restart_epochs=[2]"])
def test_todays_command_is_the_run_of_then(restarts: str) -> None:
    without = [] if "restart_at" in restarts else ["callbacks.averaging.restart_at=[]"]
    assert differences(same_runs(OLD), same_runs(composed(restarts, *without))) == []


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optimizer.lr=4", "optimizer.lr: 5.0, now 4"),
        ("callbacks.averaging.restart_at=[0.75]", "callbacks.averaging.restart_epochs: [2], now [3]"),
        ("callbacks.averaging.restart_at=[0.05]", "callbacks.averaging.restart_epochs: [2], now [1]"),
        ("model.cuda_graphs=false", "model.cuda_graphs: absent, now False"),
        ("model.network.fused_cells=true", "model.network.fused_cells: absent, now True"),
        ("callbacks.best.monitor=val_ppl", "callbacks.best.monitor: val_loss, now val_ppl"),
        ("data.shuffle_parts=20", "data.shuffle_parts: None, now 20"),
        ("~callbacks.averaging", "callbacks.averaging"),
        ("init_from=runs/other", "init_from: absent, now runs/other"),
        ("+callbacks.stop._target_=my.EarlyStopping", "callbacks.stop._target_: absent"),
    ],
)
def test_another_run_is_another(override: str, key: str) -> None:
    base = [] if "averaging" in override else ["callbacks.averaging.restart_at=[0.5]"]
    changed = differences(same_runs(OLD), same_runs(composed(*base, override)))
    assert any(line.startswith(key) for line in changed)


@pytest.mark.parametrize(
    "override",
    [
        "trainer.enable_progress_bar=false",
        "~callbacks.progress",
        "+callbacks.progress.refresh_rate=3",
        "+callbacks.watch._target_=pytorch_lightning.callbacks.LearningRateMonitor",
        "trainer.log_every_n_steps=1",
        "logger=csv logger.save_dir=here",
        "name=mine",
        "compact_checkpoints=true",
        "output=/elsewhere",
        "data.cache_dir=/elsewhere",
    ],
)
def test_what_a_run_shows_or_saves_makes_no_other_run(override: str) -> None:
    one = composed("trainer.enable_progress_bar=true")
    assert differences(same_runs(one), same_runs(composed(*override.split()))) == []
    assert run_name(override.split()) == "default"  # and none of another name


@pytest.mark.parametrize("option", PATHS)
def test_a_path_makes_one_run_however_it_is_written(option: str) -> None:
    one = same_runs(composed(f"{option}=runs/a"))
    assert differences(one, same_runs(composed(f"{option}=./runs//a/"))) == []
    assert differences(one, same_runs(composed(f"{option}=/runs/a"))) == [f"{option}: runs/a, now /runs/a"]


def test_usual_options_of_a_model_are_those_of_runs_without_them() -> None:
    assert "cuda_graphs" not in OLD["model"]
    now = composed("callbacks.averaging.restart_at=[0.5]")["model"]
    assert now["cuda_graphs"] is True
    assert now["network"]["fused_cells"] is False
    assert without_usual_options(now) == {k: v for k, v in OLD["model"].items() if k != "optimizer"}


@pytest.mark.parametrize("name", ["stacked_lstm", "gru", "awd_lstm", "awd_lstm_mos", "on_lstm", "rhn"])
def test_usual_options_are_the_defaults_of_their_classes(name: str) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        model: Any = OmegaConf.to_container(compose("train", [f"model={name}"]).model)
    for usual, given in ((_USUAL_MODEL, model), (_USUAL_NETWORK, model["network"])):
        takes = _arguments(get_class(given["_target_"]))
        assert set(usual) & set(given) == set(usual) & set(takes)  # where a class takes one, it needs no + to be given
        for key in set(usual) & set(takes):
            assert takes[key].default == usual[key]
            # Where fused cells were measured, they are chosen.
            assert given[key] == usual[key] or (name, key) == ("stacked_lstm", "fused_cells")


def _arguments(kind: type) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for each in reversed(kind.__mro__):
        found |= inspect.signature(each).parameters if "__init__" in vars(each) else {}
    return found


@pytest.mark.parametrize("config", [{}, {"trainer": "x", "callbacks": 3, "model": None, "logger": []}])
def test_what_is_no_config_of_ours_does_no_harm(config: dict[str, Any]) -> None:
    assert same_runs(same_runs(config)) == same_runs(config)
