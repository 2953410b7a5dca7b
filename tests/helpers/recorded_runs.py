"""Runs of language models with and without recordings, to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_runs import Recipe, Run, differences, end_state
from torch import Tensor

from lightning_sparse_rnn.models import LanguageModel, recording

REGULARISED = {"ar": 2.0, "tar": 1.0}


class Plain(Recipe):
    """The same run without recordings."""

    def module(self, seed: int = 1) -> pl.LightningModule:
        return self.recording(super().module(seed), False)

    @staticmethod
    def recording(module: Any, wanted: bool) -> Any:
        module.hparams.update(REGULARISED)
        module._recorder = recording.PassRecorder(wanted)
        return module


class Recorded(Plain):
    def module(self, seed: int = 1) -> pl.LightningModule:
        return self.recording(Recipe.module(self, seed), True)


def same_but(kind: type[Recipe], recipe: Recipe) -> Recipe:
    return kind(**vars(recipe))


def both(folder: Path, recipe: Recipe, *callbacks: Any) -> tuple[Run, Run]:
    return same_but(Plain, recipe).run(folder, *callbacks), same_but(Recorded, recipe).run(folder, *callbacks)


def assert_same(plain: Run, recorded: Run) -> None:
    assert differences(end_state(plain.trainer), end_state(recorded.trainer)) == []
    assert plain.rows == recorded.rows


def tokens_and_targets(steps: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    tokens, targets = torch.randint(22, (2, steps, 4), generator=torch.Generator().manual_seed(seed))
    return tokens, targets


def run_pass(model: LanguageModel, steps: int = 5, seed: int = 0, state: Any = None) -> Any:
    batch = tokens_and_targets(steps, seed)
    return model._recorder.run(model, model._train_on, (0.0, 0.0), *batch, state)
