"""A trained language model in one file: a checkpoint, or what ``sparse-rnn-export`` wrote, ready to be used."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.data import TextDataModule, Vocabulary
from lightning_sparse_rnn.inference import load_packed
from lightning_sparse_rnn.inference.compression import compress_where_it_pays
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.models.building import rebuilt
from lightning_sparse_rnn.sparsity.sparse_files import load_sparse
from lightning_sparse_rnn.utilities.plain_values import check_plain, plain
from lightning_sparse_rnn.utilities.whole_files import write_json

__all__ = ["ModelFile", "describe", "described_by", "is_exported", "load_model"]

_PACKED = b"LSRNNPK"


class ModelFile(NamedTuple):
    """What is in a file.

    Attributes:
        network: with the file's weights, in evaluation mode; packed where that pays.
        vocabulary: of the training text; ``None`` in checkpoints of before they had one.
        data: the arguments of the ``TextDataModule`` that the model was trained with.
        saved: the checkpoint, for what it is to be compared with; empty if the file was exported.
        vocabulary_given: whether the training text was read with a vocabulary from elsewhere, as in fine-tuning.
    """

    network: Any
    vocabulary: Vocabulary | None
    data: dict[str, Any]
    saved: Mapping[str, Any]
    vocabulary_given: bool = False


def described_by(path: Path) -> Path:
    """Return the path of the JSON file beside an exported one, which says what its weights mean."""
    return path.with_name(f"{path.name}.json")


def describe(saved: Mapping[str, Any], path: Path) -> None:
    """Write beside exported weights how model and text were made, and the vocabulary, if the checkpoint has one."""
    vocabulary, given = TextDataModule.vocabulary_in(saved)
    if vocabulary is not None:
        about = {
            "model": plain(dict(saved.get("hyper_parameters", {}))),
            "data": plain(dict(saved.get("datamodule_hyper_parameters", {}))),
            "vocabulary": vocabulary.state,
            "vocabulary_given": given,
        }
        write_json(described_by(path), about)


def is_exported(path: Path) -> bool:
    """Whether ``sparse-rnn-export`` wrote a file, by what the file begins with and not by its name."""
    return path.is_file() and (_is_packed(path) or _is_sparse(path))


def load_model(path: Path, *, trusted: bool = False) -> ModelFile:
    """Read a checkpoint of a language model, or an exported file of the formats ``sparse`` or ``packed``.

    Args:
        path: the file. Beside an exported one stands its description, ``NAME.json``.
        trusted: make whatever the file names, which may run any code.

    Raises:
        FileNotFoundError: there is no such file, or no description beside it.
        ValueError: it is damaged, of another model, or names what is not known here.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a run's folder, a checkpoint, or a file of sparse-rnn-export; there is no {path}."
        )
    if not is_exported(path):
        if described_by(path).is_file():
            raise ValueError(
                f"{path} is in a format for other libraries. Expected one that was exported with --format sparse or "
                "packed."
            )
        return _of_checkpoint(path, trusted)
    about = _about(path)
    check_plain("data", about["data"])
    if _is_packed(path):
        network = load_packed(path)
    else:
        saved = {"state_dict": load_sparse(path), "hyper_parameters": about["model"]}
        network = compress_where_it_pays(rebuilt(LanguageModel, saved, {}, trusted=trusted).network.eval())
    known, given = Vocabulary.from_state(about["vocabulary"]), about.get("vocabulary_given") is True
    return _checked(ModelFile(network, known, about["data"], {}, given), path)


def _of_checkpoint(path: Path, trusted: bool) -> ModelFile:
    saved = load_checkpoint(path, weights_only=not trusted)
    data = saved.get("datamodule_hyper_parameters", {})
    if "network" not in saved.get("hyper_parameters", {}) or "source" not in data:
        raise ValueError(f"Expected a checkpoint of a LanguageModel trained on a TextDataModule, got {path}.")
    network = compress_where_it_pays(rebuilt(LanguageModel, saved, {}, trusted=trusted).network.eval())
    vocabulary, given = TextDataModule.vocabulary_in(saved)
    return _checked(ModelFile(network, vocabulary, dict(data), saved, given), path)


def _checked(file: ModelFile, path: Path) -> ModelFile:
    known, size = file.vocabulary, file.network.vocab_size
    if known is not None and len(known) != size:
        raise ValueError(
            f"Expected a vocabulary of {size} tokens beside the weights in {path}, got one of {len(known)}."
        )
    return file


def _about(path: Path) -> dict[str, Any]:
    """Return what stands beside an exported file."""
    beside = described_by(path)
    if not beside.is_file():
        raise FileNotFoundError(
            f"Expected {beside} beside {path}: it has the model's arguments and its vocabulary. "
            "sparse-rnn-export writes both files; keep them together."
        )
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(about, dict) or not {"model", "vocabulary"} <= about.keys():
            raise ValueError("it lacks the model's arguments or the vocabulary")
        return {"data": {}, **about}
    except ValueError as error:
        raise ValueError(f"{beside} cannot be read: {error}") from error


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_PACKED)) == _PACKED


def _is_sparse(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whatever it is, the one who reads it will say
        return False
    return isinstance(saved, dict) and str(saved.get("format", "")).startswith("lightning_sparse_rnn.sparse")
