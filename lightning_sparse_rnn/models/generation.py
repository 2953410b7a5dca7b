"""Tokens drawn from a network, one after another."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_sparse_rnn.models import Network

__all__ = ["generate"]


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
