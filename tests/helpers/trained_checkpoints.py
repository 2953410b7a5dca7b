"""Checkpoints with what a Trainer writes into them, of models that nobody has trained."""

from pathlib import Path

import torch

from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel


def save_checkpoint(path: Path, model: LanguageModel, data: TextDataModule) -> Path:
    """Write a checkpoint of ``model`` and ``data`` as a Trainer would, as far as testing and generating read it."""
    saved = {
        "state_dict": model.state_dict(),
        "global_step": 1,
        "hyper_parameters": dict(model.hparams),
        "datamodule_hyper_parameters": dict(data.hparams),
        "TextDataModule": data.state_dict(),
    }
    torch.save(saved, path)
    return path
