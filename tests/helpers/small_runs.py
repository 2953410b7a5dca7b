"""The config of a small run, and what is read from its folder."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lightning_sparse_rnn.runs.config import CONFIG_DIR

EPOCHS = 4


def small_options(text: Path, cache: Path) -> list[str]:
    """Overrides for a small network on a small text."""
    return [
        "data=folder",
        f"data.root={text}",
        f"data.cache_dir={cache}",
        "data.batch_size=4",
        "data.eval_batch_size=2",
        "data.bptt=10",
        "model.network.embedding_size=8",
        "model.network.hidden_size=12",
        "model.network.tied=false",
        "trainer.accelerator=cpu",
    ]


def small_config(text: Path, tmp_path: Path, *overrides: str) -> DictConfig:
    small = [*small_options(text, tmp_path / "cache"), "optimizer.nonmono=1", f"trainer.max_epochs={EPOCHS}"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", [*small, *overrides])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state
