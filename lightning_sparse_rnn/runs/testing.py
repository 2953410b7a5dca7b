"""The test perplexity of a run, of one of its checkpoints, or of an exported file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from lightning_sparse_rnn.checkpoints.fits import check_fits, check_text
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.data import TextDataModule, Vocabulary
from lightning_sparse_rnn.data.texts import read_text
from lightning_sparse_rnn.inference.compression import compress_where_it_pays
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.models.building import NETWORKS, check_sizes
from lightning_sparse_rnn.runs.config import model_config
from lightning_sparse_rnn.runs.matmul_precision import set_matmul_precision
from lightning_sparse_rnn.runs.model_file import described_by, load_model
from lightning_sparse_rnn.runs.tested_config import ALONE, changed
from lightning_sparse_rnn.utilities.making import make

__all__ = ["test", "test_file"]


def test(
    config: DictConfig,
    checkpoint: Path,
    *,
    text: Path | None = None,  # noqa: PT028
    trusted: bool = False,  # noqa: PT028
) -> dict[str, float]:
    """Return ``test_loss`` (nats a token) and ``test_ppl`` of a checkpoint on the text of ``config``.

    Args:
        config: that of a run; whatever it names is made.
        checkpoint: the file of weights.
        text: a file to test on, read with the vocabulary in the checkpoint: the training text need not be there.
        trusted: read other objects than tensors and plain values from it, which may run any code.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged, or of another model or text; the message says what differs.
    """
    set_matmul_precision(config.matmul_precision)
    # The run's own Trainer, since precision and limits have a say in the result.
    trainer: pl.Trainer = make(config.trainer, **ALONE)
    data = make(config.data)
    saved = load_checkpoint(checkpoint, weights_only=not trusted)
    if text is None:
        if config.get("init_from") is not None:
            data.read_with(_vocabulary(saved, checkpoint))
        data.prepare_data()
    else:
        data.read_only(_vocabulary(saved, checkpoint), read_text(text))
    options = model_config(config, data.vocab_size)
    if OmegaConf.select(options, "network._target_") in NETWORKS:  # of others only making them tells the sizes
        check_sizes(OmegaConf.to_container(options.network), data.vocab_size, saved["state_dict"])  # type: ignore[arg-type]
    model = make(options, vocab_size=data.vocab_size)
    check_fits(saved, model)
    check_text(saved, data)
    trainer.precision_plugin.convert_module(model)  # before weights of float64 would be rounded
    model.load_state_dict(saved["state_dict"])
    if trainer.precision == "32-true" and trainer.strategy.root_device.type == "cpu" and _one_column(config):
        model.network = compress_where_it_pays(model.network)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return dict(metrics)


def test_file(
    path: Path,
    overrides: Sequence[str],
    *,
    text: Path | None = None,  # noqa: PT028
    trusted: bool = False,  # noqa: PT028
) -> dict[str, float]:
    """Return what :func:`test` does of a model in a file: a checkpoint, or one of ``sparse-rnn-export``, on the CPU.

    Args:
        path: the file; beside an exported one stands its description.
        overrides: values of ``data`` to change, as in ``data.test_batch_size=1``.
        text: a file to test on; the text that the model was trained with if not given.
        trusted: make whatever the file names, which may run any code.

    Raises:
        FileNotFoundError: there is no such file, or its text is gone and ``text`` is not given.
        ValueError: the file is damaged, of another kind, or of another text.
    """
    file = load_model(path, trusted=trusted)
    if "source" not in file.data:
        raise ValueError(f"{described_by(path)} does not say how the text was read. Export the weights again.")
    config = changed(OmegaConf.create({"data": file.data}), overrides)
    data = TextDataModule(**OmegaConf.to_container(config.data))  # type: ignore[arg-type]
    if text is not None:
        if file.vocabulary is None:
            raise _without_vocabulary(path)
        data.read_only(file.vocabulary, read_text(text))
    elif file.vocabulary is None:
        check_text(file.saved, data)
    elif file.vocabulary_given:
        data.read_with(file.vocabulary)
    else:
        data.load_state_dict({"vocabulary": file.vocabulary.fingerprint})
    model = LanguageModel(file.network, file.network.vocab_size)
    (metrics,) = pl.Trainer(accelerator="cpu", **ALONE).test(model, datamodule=data, verbose=False)
    return dict(metrics)


def _vocabulary(saved: Mapping[str, Any], checkpoint: Path) -> Vocabulary:
    vocabulary, _ = TextDataModule.vocabulary_in(saved)
    if vocabulary is None:
        raise _without_vocabulary(checkpoint)
    return vocabulary


def _without_vocabulary(path: Path) -> ValueError:
    return ValueError(f"{path} has no vocabulary: it was written before they had one. Leave --text out.")


def _one_column(config: DictConfig) -> bool:
    """Whether packed weights pay: with many columns a dense product is as fast."""
    return bool(OmegaConf.select(config, "data.test_batch_size") == 1)
