"""Configs of runs from when values had other addresses: the same run is the same run, and another is another."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from files_of_before import BEFORE, COMMAND, RESTARTS
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.flat_config import differences
from lightning_sparse_rnn.runs.old_configs import same_runs, up_to_date

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
    ],
)
def test_what_a_run_shows_or_saves_makes_no_other_run(override: str) -> None:
    one = composed("trainer.enable_progress_bar=true")
    assert differences(same_runs(one), same_runs(composed(*override.split()))) == []


@pytest.mark.parametrize("config", [{}, {"trainer": "x", "callbacks": 3, "model": None, "logger": []}])
def test_what_is_no_config_of_ours_does_no_harm(config: dict[str, Any]) -> None:
    assert same_runs(same_runs(config)) == same_runs(config)
