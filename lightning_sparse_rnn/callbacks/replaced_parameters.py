"""Parameters of a topology that are replaced in the module: where they are looked for, and what their masks become."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits, unpack_bits
from lightning_sparse_rnn.sparsity.numerics.sampling import choose, generator_for

__all__ = ["is_of", "links_of", "resized", "told_of_gone"]


def is_of(parameters: Mapping[str, nn.Parameter], module: nn.Module) -> bool:
    """Whether these are parameters of ``module``; one may be frozen by now."""
    own = dict(module.named_parameters(remove_duplicate=False))
    return all(own.get(name) is parameter for name, parameter in parameters.items())


def links_of(module: nn.Module, names: Mapping[str, nn.Parameter]) -> list[tuple[dict[str, Any], str, Any]]:
    """Return every step of the paths to these parameters: the dict it is in, its key, and what is there now."""
    links: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
    for name, parameter in names.items():
        *path, last = name.split(".")
        here = module
        for part in path:
            inner = here._modules[part]
            assert inner is not None
            links[id(here), part] = (here._modules, part, inner)
            here = inner
        links[id(here), last] = (here._parameters, last, parameter)
    return list(links.values())


def told_of_gone(gone: Sequence[str], before: Mapping[str, nn.Parameter], own: Mapping[str, nn.Parameter]) -> str:
    """Return the message of sparse parameters that the module has no more under their names.

    Args:
        gone: their names.
        before: the sparse parameters by name.
        own: the module's parameters by the names they have now.
    """
    now = {parameter: name for name, parameter in own.items()}
    if renamed := [f"{name} is now called {now[before[name]]}" for name in gone if before[name] in now]:
        return (
            f"{', '.join(renamed)}: it got another name in mid-run, and sparse training knows parameters by theirs. "
            "Wrap or compile a part of the module before the fit starts, in `__init__` or `configure_model`, or "
            "compile it in place, which leaves names as they are: `part.compile()` for `part = torch.compile(part)`."
        )
    return (
        f"{', '.join(gone)} went out of the module in mid-run, and sparse training cannot go on without. "
        "Change what a module consists of between two fits."
    )


def resized(state: Mapping[str, Any], name: str, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Return a topology's state with one tensor in another shape."""
    old_shape = tuple(state["shapes"][name])
    if old_shape == shape:
        return dict(state)
    old = {part: unpack_bits(state[part][name], math.prod(old_shape)).view(old_shape) for part in ("masks", "explored")}
    common = tuple(slice(min(*sizes)) for sizes in zip(old_shape, shape, strict=False))
    if len(old_shape) != len(shape):
        common = (slice(0),) * len(shape)
    added = torch.ones(shape, dtype=torch.bool)
    added[common] = False
    places = int(added.sum())
    live = round(places * int(old["masks"].sum()) / old["masks"].numel())
    drawn = torch.zeros(shape, dtype=torch.bool)
    generator = generator_for(seed, state["updates"], f"{name} {shape}", drawn.device)
    drawn[added] = choose(places, live, generator)
    new = dict(state)
    for part, bits in old.items():
        whole = drawn.clone()
        if len(old_shape) == len(shape):
            whole[common] = bits[common]
        new[part] = {**state[part], name: pack_bits(whole.flatten())}
    new["shapes"] = {**state["shapes"], name: list(shape)}
    for part in ("signs", "momenta"):
        new[part] = {key: value for key, value in state[part].items() if key != name}
    return new
