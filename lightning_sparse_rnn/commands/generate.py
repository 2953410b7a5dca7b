"""``sparse-rnn-generate``: text from a trained model, word by word."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sparse_rnn.commands.own_modules import import_from_here
from lightning_sparse_rnn.commands.plain_errors import interruptible, told_plainly
from lightning_sparse_rnn.runs.folder import BEST

if TYPE_CHECKING:  # it takes seconds, for which the help should not wait
    from torch import Tensor

    from lightning_sparse_rnn.data import Vocabulary
    from lightning_sparse_rnn.models import Network

__all__ = ["main"]


@interruptible()
def main(arguments: Sequence[str] | None = None) -> None:
    """Write text from a model of sparse-rnn-train, token by token as it comes."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-generate", description=main.__doc__)
    parser.add_argument(
        "model", type=Path, help="the folder of a run (its best.ckpt), a checkpoint, or a file of sparse-rnn-export"
    )
    parser.add_argument("--prompt", default="", help="text to go on from, - for standard input (default: a new line)")
    parser.add_argument("--tokens", type=int, default=200, help="number of tokens to write (default: 200)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1 safer, above 1 wilder, 0 the likeliest")
    parser.add_argument("--top-k", type=int, help="only ever choose among the k likeliest tokens")
    parser.add_argument("--seed", type=int, help="the same seed writes the same text")
    parser.add_argument("--root", help="folder of the training text, if it is not where it was in training")
    parser.add_argument("--trust", action="store_true", help="make whatever the file names; it may then run any code")
    given = parser.parse_args(arguments)
    with told_plainly("sparse-rnn-generate"):
        if given.trust:
            import_from_here()
        from lightning_sparse_rnn.models.generation import generate
        from lightning_sparse_rnn.utilities.finite import check_finite

        if given.tokens < 1:
            raise ValueError(f"Expected --tokens of at least 1, got {given.tokens}.")
        path = given.model / BEST if given.model.is_dir() else given.model
        network, vocabulary = _load(path, given.root, given.trust)
        check_finite(network.state_dict())
        prompt = _encode(sys.stdin.read() if given.prompt == "-" else given.prompt, vocabulary)
        chosen = generate(network, prompt, given.temperature, given.top_k, given.seed)
    ids = itertools.chain(prompt.tolist(), itertools.islice(chosen, given.tokens))
    try:
        for piece in vocabulary.pieces_of_text(ids):
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print()
        raise
    except BrokenPipeError:
        # Whoever read has had enough; Python must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _load(path: Path, root: str | None, trusted: bool) -> tuple[Network, Vocabulary]:
    """The network in a file and the vocabulary of the text it was trained on."""
    from lightning_sparse_rnn.checkpoints.fits import check_text
    from lightning_sparse_rnn.data import TextDataModule
    from lightning_sparse_rnn.runs.model_file import load_model
    from lightning_sparse_rnn.utilities.plain_values import check_plain

    file = load_model(path, trusted=trusted)
    network: Network = file.network
    if file.vocabulary is not None and root is None:
        return network, file.vocabulary
    # Written before checkpoints had their vocabulary, or to be compared.
    if not file.saved:
        raise ValueError(f"{path} has its vocabulary beside it. Leave --root out.")
    check_plain("data", file.data)
    data = TextDataModule(**(file.data if root is None else {**file.data, "root": root}))
    if data.vocab_size != network.vocab_size:
        raise ValueError(
            f"Expected the text the model was trained on, with {network.vocab_size} different tokens, got one "
            f"with {data.vocab_size}. Give its folder with --root."
        )
    check_text(file.saved, data)
    return network, data.vocabulary


def _encode(prompt: str, vocabulary: Vocabulary) -> Tensor:
    """Ids of the tokens of `prompt`; of the end of a line if there are none."""
    unknown = [token for token in vocabulary.split(prompt) if token not in vocabulary]
    if unknown:
        raise ValueError(
            f"Expected a prompt of {vocabulary.kind} from the training text, which has no "
            f"{', '.join(dict.fromkeys(unknown))}. "
            + "Its words are parted by spaces, marks too, and may all be in lower case."
            * (vocabulary.kind == "words")
        )
    ids = vocabulary.encode(prompt or "\n")
    # A last line without a line break goes on.
    return ids[:-1] if len(ids) > 1 and not prompt.endswith("\n") else ids


if __name__ == "__main__":
    main()
