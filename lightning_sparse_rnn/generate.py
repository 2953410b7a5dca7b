"""``sparse-rnn-generate``: text from a trained model, word by word."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_sparse_rnn.checkpoints import check_text, load_checkpoint
from lightning_sparse_rnn.data import TextDataModule, Vocabulary
from lightning_sparse_rnn.data.texts import EOS
from lightning_sparse_rnn.mistakes import told_plainly
from lightning_sparse_rnn.models import LanguageModel, Network

__all__ = ["generate", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write text from a checkpoint of sparse-rnn-train, word by word as it comes."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-generate", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or the folder of a run, of which its best.ckpt")
    parser.add_argument("--prompt", default="", help="words to go on from; a new line if not given")
    parser.add_argument("--tokens", type=int, default=200, help="number of tokens to write (default: 200)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1 safer, above 1 wilder, 0 the likeliest")
    parser.add_argument("--top-k", type=int, help="only ever choose among the k likeliest tokens")
    parser.add_argument("--seed", type=int, help="the same seed writes the same text")
    parser.add_argument("--root", help="folder of the training text, if it is not where it was in training")
    given = parser.parse_args(arguments)
    with told_plainly("sparse-rnn-generate"):
        if given.tokens < 1:
            raise ValueError(f"Expected --tokens of at least 1, got {given.tokens}.")
        path = given.checkpoint / "best.ckpt" if given.checkpoint.is_dir() else given.checkpoint
        network, vocabulary = _load(path, given.root)
        prompt = _encode(given.prompt, vocabulary)
        chosen = generate(network, prompt, given.temperature, given.top_k, given.seed)
    ids = itertools.chain(prompt.tolist(), itertools.islice(chosen, given.tokens))
    try:
        for piece in _spaced(vocabulary.tokens[index] for index in ids):
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print()
    except BrokenPipeError:
        # Whoever read has had enough; Python must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def generate(
    network: Network, prompt: Tensor, temperature: float = 1.0, top_k: int | None = None, seed: int | None = None
) -> Iterator[int]:
    """Tokens drawn one after another, without end, each given all before it.

    The network is put into evaluation mode.

    Args:
        network: reads tokens of shape (time, columns).
        prompt: ids to go on from, 1-D, on the network's device, at least one.
        temperature: what log-probabilities are divided by; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens only; None: among all.
        seed: seed of the draws; None: another one each time.

    Raises:
        ValueError: if the prompt is empty, `temperature` is negative or not finite, or `top_k` is not between 1 and
            the size of the vocabulary.
    """
    if prompt.dim() != 1 or not prompt.numel():
        raise ValueError(f"Expected a prompt of at least one id, 1-D, got shape {tuple(prompt.shape)}.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"Expected a temperature of at least 0, got {temperature}.")
    if top_k is not None and not 1 <= top_k <= network.vocab_size:
        raise ValueError(f"Expected top-k between 1 and the vocabulary's {network.vocab_size} tokens, got {top_k}.")
    draws = torch.Generator()
    if seed is None:
        draws.seed()
    else:
        draws.manual_seed(seed)
    return _generate(network.eval(), prompt, temperature, top_k, draws)


def _generate(
    network: Network, prompt: Tensor, temperature: float, top_k: int | None, draws: torch.Generator
) -> Iterator[int]:
    tokens, state = prompt, None
    while True:
        with torch.inference_mode():
            output = network(tokens.unsqueeze(1), state)
            state = output.state
            log_probs = network.log_probs(output.hidden[-1, 0]).float().cpu()
            if top_k is not None:
                least = log_probs.topk(top_k).values[-1]
                log_probs = log_probs.masked_fill(log_probs < least, -torch.inf)
            if temperature == 0:
                token = int(log_probs.argmax())
            else:
                scores = (log_probs - log_probs.max()).double() / temperature  # of the likeliest 0, however low it is
                token = int(torch.multinomial(scores.softmax(-1).float(), 1, generator=draws))
            tokens = torch.tensor([token], device=prompt.device)
        yield token


def _load(path: Path, root: str | None) -> tuple[Network, Vocabulary]:
    """The network of a checkpoint and the vocabulary of the text it was trained on."""
    saved = load_checkpoint(path)
    model_options, data_options = saved.get("hyper_parameters", {}), saved.get("datamodule_hyper_parameters", {})
    if "network" not in model_options or "source" not in data_options:
        raise ValueError(f"Expected a checkpoint of a LanguageModel trained on a TextDataModule, got {path}.")
    model = LanguageModel(**model_options)
    model.load_state_dict(saved["state_dict"])
    data = TextDataModule(**(data_options if root is None else {**data_options, "root": root}))
    if data.vocab_size != model.network.vocab_size:
        raise ValueError(
            f"Expected the text the model was trained on, with {model.network.vocab_size} different tokens, got one "
            f"with {data.vocab_size}. Give its folder with --root."
        )
    check_text(saved, data)
    return model.network, data.vocabulary


def _encode(prompt: str, vocabulary: Vocabulary) -> Tensor:
    """Ids of the words of `prompt`; of the end of a line if there are none."""
    unknown = [word for word in prompt.split() if word not in vocabulary]
    if unknown:
        raise ValueError(
            f"Expected a prompt of words from the training text, which has no {', '.join(dict.fromkeys(unknown))}. "
            "Its words are parted by spaces, marks too, and may all be in lower case."
        )
    ids = vocabulary.encode(prompt or "\n")
    # A last line without a line break goes on.
    return ids[:-1] if prompt.strip() and not prompt.endswith("\n") else ids


def _spaced(words: Iterable[str]) -> Iterator[str]:
    """`words` with a space between them, and line breaks for the ends of lines."""
    space = ""
    for word in words:
        if word == EOS:
            yield "\n"
            space = ""
        else:
            yield space + word
            space = " "


if __name__ == "__main__":
    main()
