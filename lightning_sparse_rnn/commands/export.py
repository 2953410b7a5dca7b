"""``sparse-rnn-export``: the weights of a run as a file, sparse, packed or for other libraries."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.commands.plain_errors import told_plainly
from lightning_sparse_rnn.inference import compress, save_packed
from lightning_sparse_rnn.inference.exports import save_dense, save_onnx, save_safetensors
from lightning_sparse_rnn.models import LanguageModel, Network
from lightning_sparse_rnn.models.building import rebuilt
from lightning_sparse_rnn.runs.folder import BEST, CARD, EXPORTED
from lightning_sparse_rnn.runs.model_file import describe
from lightning_sparse_rnn.sparsity.sparse_files import save_sparse
from lightning_sparse_rnn.utilities.plain_values import plain
from lightning_sparse_rnn.utilities.whole_files import write_text

__all__ = ["export", "export_to", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the averaged, masked weights of a run's best checkpoint, or of another one, as a file."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-export", description=main.__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of sparse-rnn-train")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of that run; its best.ckpt if not given")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="sparse",
        help="sparse: zeros take one bit (default); packed: ready to run by load_packed; dense: a state_dict of torch; "
        "safetensors, onnx: the weights, and the network, for other libraries",
    )
    parser.add_argument(
        "--dtype",
        choices=_DTYPES,
        help="of packed values (default: float32, exact)",
    )
    parser.add_argument("--output", type=Path, help="the file to write; by default weights.* in the run's folder")
    parser.add_argument(
        "--trust", action="store_true", help="read objects other than tensors and plain values; they may run any code"
    )
    parser.add_argument(
        "--card",
        action="store_true",
        help="write a model card, README.md, beside the file: what was trained, how well, and how",
    )
    parser.add_argument("--twin", type=Path, help="for the card: the run of a dense network of as few weights")
    parser.add_argument("--license", help="for the card: the licence of the weights, as in apache-2.0")
    given = parser.parse_args(arguments)
    output = given.output or given.run / FORMATS[given.format].name
    checkpoint = given.checkpoint or given.run / BEST
    with told_plainly("sparse-rnn-export"):
        _check_options(given)
        card = _card(given, output) if given.card else None  # first: it says if there is no finished run to write of
        if given.format == "sparse":
            dense, size = export(checkpoint, output, trusted=given.trust)
        else:
            dtype = _DTYPES[given.dtype or "float32"]
            dense, size = export_to(given.format, checkpoint, output, dtype, trusted=given.trust)
        if card is not None:
            write_text(output.parent / CARD, card)
    print(f"{output}: {size:,} bytes, {size / dense:.3f} of the {dense:,} bytes of the same weights written densely")
    print("Read it with:")
    print(FORMATS[given.format].read_with.format(output=str(output)))
    if card is not None:
        print(f"Its model card is {output.parent / CARD}")


class Format(NamedTuple):
    """The file's name by default, and the Python code that reads it."""

    name: str
    read_with: str


#: What ``--format`` can be.
FORMATS = {
    "sparse": Format(EXPORTED, "  from lightning_sparse_rnn import load_sparse\n  weights = load_sparse({output!r})"),
    "packed": Format(
        "weights.packed",
        "  from lightning_sparse_rnn.inference import load_packed\n  network = load_packed({output!r})",
    ),
    "dense": Format("weights.pt", "  import torch\n  weights = torch.load({output!r}, weights_only=True)"),
    "safetensors": Format(
        "weights.safetensors", "  from safetensors.torch import load_file\n  weights = load_file({output!r})"
    ),
    "onnx": Format("network.onnx", "  import onnxruntime\n  session = onnxruntime.InferenceSession({output!r})"),
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def _check_options(given: argparse.Namespace) -> None:
    """Raise ValueError if an option would have no effect, or the card would say what is not so."""
    if given.dtype is not None and given.format != "packed":
        raise ValueError(f"--dtype is of packed values: expected --format packed beside it, got {given.format}.")
    for name in ("twin", "license"):
        if getattr(given, name) is not None and not given.card:
            raise ValueError(f"--{name} is for the model card: expected --card beside it.")
    if given.card and given.checkpoint is not None:
        raise ValueError("--card has the perplexities of the run's best.ckpt: leave --checkpoint out.")
    if given.output is not None and given.output.is_dir():
        raise ValueError(f"Expected --output as a file to write, got the folder {given.output}.")


def _card(given: argparse.Namespace, output: Path) -> str:
    # Here, since it reads configs and tables, which weights do not need.
    from lightning_sparse_rnn.runs.model_card import model_card

    path = output.parent / CARD
    if path.exists() and not path.read_text(encoding="utf-8").startswith("---\n"):
        raise ValueError(f"There is a {path} that is no model card. Write the weights to another folder with --output.")
    use = textwrap.dedent(FORMATS[given.format].read_with.format(output=output.name))
    return model_card(
        given.run,
        use,
        command=f"sparse-rnn-generate {shlex.quote(output.name)}" if given.format in ("sparse", "packed") else None,
        rounded=given.dtype if given.dtype != "float32" else None,
        twin=given.twin,
        license=given.license,
    )


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
        ValueError: the checkpoint is damaged, or none of Lightning.
    """
    saved = load_checkpoint(checkpoint, weights_only=not trusted)
    weights = saved["state_dict"]
    output.parent.mkdir(parents=True, exist_ok=True)
    save_sparse(output, weights)
    describe(saved, output)
    return _dense_bytes(weights), output.stat().st_size


def export_to(
    kind: str, checkpoint: Path, output: Path, dtype: torch.dtype = torch.float32, *, trusted: bool = False
) -> tuple[int, int]:
    """Write a checkpoint of a language model in another of ``FORMATS``; otherwise as :func:`export`.

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


def _dense_bytes(weights: Mapping[str, Any]) -> int:
    # Tied weights are written once either way.
    storages = {(tensor.data_ptr(), tensor.nbytes) for tensor in weights.values() if isinstance(tensor, torch.Tensor)}
    return sum(size for _, size in storages)


if __name__ == "__main__":
    main()
