"""``sparse-rnn-export``: the weights of a run as a file, sparse, packed or for other libraries."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_sparse_rnn.commands.own_modules import import_from_here
from lightning_sparse_rnn.commands.plain_errors import interruptible, told_plainly
from lightning_sparse_rnn.runs.folder import BEST, CARD, EXPORTED

__all__ = ["main"]


@interruptible()
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
        if given.trust:
            import_from_here()
        # Here, since it takes seconds, for which the help should not wait.
        import torch

        from lightning_sparse_rnn.runs.exporting import export, export_to
        from lightning_sparse_rnn.runs.quiet import quiet
        from lightning_sparse_rnn.utilities.whole_files import write_text

        quiet()
        card = _card(given, output) if given.card else None  # first: it says if there is no finished run to write of
        if given.format == "sparse":
            dense, size = export(checkpoint, output, trusted=given.trust)
        else:
            dtype = getattr(torch, given.dtype or "float32")
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
_DTYPES = ("float32", "bfloat16", "int8")


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
    if given.output is not None and given.output.suffix == ".ckpt" and given.output.exists():
        raise ValueError(f"Expected --output as a file of its own, got {given.output}: a checkpoint would be lost.")


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


if __name__ == "__main__":
    main()
