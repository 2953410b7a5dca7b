"""``sparse-rnn-export``: the weights of a run as a file in which zeros take a bit each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.commands.plain_errors import told_plainly
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.runs.folder import BEST, EXPORTED
from lightning_sparse_rnn.sparsity.sparse_files import save_sparse
from lightning_sparse_rnn.utilities.plain_values import plain
from lightning_sparse_rnn.utilities.whole_files import write_json, write_text

__all__ = ["export", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the averaged, masked weights of a run's best checkpoint, or of another one, as a sparse file."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-export", description=main.__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of sparse-rnn-train")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of that run; its best.ckpt if not given")
    parser.add_argument(
        "--output", type=Path, help="the file to write; weights.sparse.pt in the run's folder by default"
    )
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
    output = given.output or given.run / EXPORTED
    with told_plainly("sparse-rnn-export"):
        dense, sparse = export(given.checkpoint or given.run / BEST, output, trusted=given.trust)
        if given.card:
            _write_card(given.run, output, given.twin, given.license)
    print(
        f"{output}: {sparse:,} bytes, {sparse / dense:.3f} of the {dense:,} bytes of the same weights written densely"
    )
    print("Read it with:")
    print(f"  from lightning_sparse_rnn import load_sparse\n  weights = load_sparse({str(output)!r})")


def described_by(output: Path) -> Path:
    """The file beside an exported one that has the model's arguments and its vocabulary, as JSON."""
    return output.with_name(f"{output.name}.json")


def _write_card(run: Path, output: Path, twin: Path | None, license: str | None) -> None:
    # Here, since it reads configs and tables, which weights do not need.
    from lightning_sparse_rnn.runs.model_card import CARD, model_card

    path = output.parent / CARD
    if path.exists() and not path.read_text(encoding="utf-8").startswith("---\n"):
        raise ValueError(f"There is a {path} that is no model card. Write the weights to another folder with --output.")
    write_text(path, model_card(run, output.name, twin=twin, license=license))


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
    if "text" in (text := saved.get(TextDataModule.__qualname__, {})):
        about = {"model": plain(dict(saved.get("hyper_parameters", {}))), "vocabulary": text["text"]}
        write_json(described_by(output), about)
    # Tied weights are written once either way.
    storages = {(tensor.data_ptr(), tensor.nbytes) for tensor in weights.values() if isinstance(tensor, torch.Tensor)}
    return sum(size for _, size in storages), output.stat().st_size


if __name__ == "__main__":
    main()
