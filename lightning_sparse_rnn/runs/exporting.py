"""A checkpoint's weights as a file, sparse, packed or for other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.inference import compress, save_packed
from lightning_sparse_rnn.inference.exports import save_dense, save_onnx, save_safetensors
from lightning_sparse_rnn.models import LanguageModel, Network
from lightning_sparse_rnn.models.building import rebuilt
from lightning_sparse_rnn.runs.model_file import describe
from lightning_sparse_rnn.sparsity.sparse_files import save_sparse
from lightning_sparse_rnn.utilities.finite import check_finite
from lightning_sparse_rnn.utilities.plain_values import plain

__all__ = ["export", "export_to"]


def export(checkpoint: Path, output: Path, *, trusted: bool = False) -> tuple[int, int]:
    """Write a checkpoint's weights to ``output``, and what they mean to a JSON file beside it.

    Returns:
        The bytes of the weights' tensors, and those of the file.

    Args:
        checkpoint: a file that a Trainer wrote.
        output: the file to write.
        trusted: read other objects than tensors and plain values too, which may run any code.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged, none of Lightning, or of a run that has diverged: a weight is NaN, or
            infinite in a language model. Other modules may have infinities on purpose.
    """
    saved = load_checkpoint(checkpoint, weights_only=not trusted)
    weights = saved["state_dict"]
    _check_weights(saved)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_sparse(output, weights)
    describe(saved, output)
    return _dense_bytes(weights), output.stat().st_size


def export_to(
    kind: str, checkpoint: Path, output: Path, dtype: torch.dtype = torch.float32, *, trusted: bool = False
) -> tuple[int, int]:
    """Write a checkpoint of a language model in another format; otherwise as :func:`export`.

    The names of weights are those of the network, without the ``network.`` that they have in a checkpoint.

    Args:
        kind: ``packed``, ``dense``, ``safetensors`` or ``onnx``.
        dtype: of packed values.

    Raises:
        ValueError: also if the checkpoint is of no language model, or packing saves nothing.
    """
    saved = load_checkpoint(checkpoint, weights_only=not trusted)
    if "network" not in saved.get("hyper_parameters", {}):
        raise ValueError(f"Expected a checkpoint of a LanguageModel, got {checkpoint}. Export it with --format sparse.")
    _check_weights(saved)
    network: Network = rebuilt(LanguageModel, saved, {}, trusted=trusted).network.eval().float()
    output.parent.mkdir(parents=True, exist_ok=True)
    if kind == "packed":
        options = {**saved["hyper_parameters"]["network"], "vocab_size": network.vocab_size}
        save_packed(output, compress(network, dtype, smallest=1), plain(options))
    elif kind == "onnx":
        save_onnx(output, network)
    elif kind == "safetensors":
        save_safetensors(output, network.state_dict())
    else:
        save_dense(output, network.state_dict())
    describe(saved, output)
    return _dense_bytes(network.state_dict()), output.stat().st_size


def _check_weights(saved: Mapping[str, Any]) -> None:
    tensors = {name: each for name, each in saved["state_dict"].items() if isinstance(each, torch.Tensor)}
    if "network" not in saved.get("hyper_parameters", {}):
        tensors = {name: each for name, each in tensors.items() if each.is_floating_point() and each.isnan().any()}
    check_finite(tensors)


def _dense_bytes(weights: Mapping[str, Any]) -> int:
    # Tied weights are written once either way.
    storages = {(tensor.data_ptr(), tensor.nbytes) for tensor in weights.values() if isinstance(tensor, torch.Tensor)}
    return sum(size for _, size in storages)
