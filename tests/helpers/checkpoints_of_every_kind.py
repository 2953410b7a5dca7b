"""A checkpoint with all that is peculiar to those of sparse runs, and what makes two the same."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor


def same(one: Any, other: Any) -> None:
    """Assert that two checkpoints are of the same types and bits."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        ours, theirs = (each.detach().contiguous().flatten().view(torch.uint8) for each in (one, other))
        assert torch.equal(ours, theirs)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    else:
        assert one == other or one != one


def sparse(*shape: int, density: float = 0.33, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Masked weights, with zeros of both signs, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(shape, generator=generator) < density).float()
    return torch.randn(shape, generator=generator) * mask, mask


def checkpoint(seed: int = 0) -> dict[str, Any]:
    """One as a sparse run has it after the trigger, with all that is peculiar to it."""
    torch.manual_seed(seed)
    weight, mask = sparse(200, 150, seed=seed)
    weight[mask.nonzero()[0].tolist()] = 0.0  # a weight that has just been born
    mean = weight * 0.9
    state = OrderedDict({"weight": mean, "decoder.weight": mean, "bias": torch.randn(150)})
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    births = torch.full((200, 150), 700, dtype=torch.int32).masked_fill_(torch.rand(200, 150) < 0.2, 1400)
    return {
        "state_dict": state,
        "global_step": 1500,
        "optimizer_states": [{"state": {0: {"mean": mean, "born": births, "step": torch.tensor(3.0)}}}],
        "raw": {"weight": weight},
        "masks": {"bits": torch.from_numpy(np.packbits(mask.bool().numpy())), "float": mask, "bool": mask.bool()},
        "carried": [(torch.randn(1, 20, 30), None), 4.5, "text", (1, 2)],
        "empty": torch.empty(0, 3),
    }
