"""A stand-in for CUDA graphs on a CPU: the operations of a run, one by one, on the memory they were recorded with.

Like a graph it knows nothing of Python: what was a number, a branch or a copy made beforehand when it was recorded is
the same in every replay; and like a graph it draws random numbers anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_sparse_rnn.models import recording
from lightning_sparse_rnn.models.kernels import cuda_graphs, linear


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self.calls:
            for old, new in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(new, Tensor) and old.data_ptr() != new.data_ptr():  # neither a view nor in place
                    old.copy_(new)


class Stand:
    """What takes the place of `cuda_graphs.record`, and counts."""

    def __init__(self) -> None:
        self.recordings = 0
        self.replays = 0

    def record(
        self, runs: Sequence[Callable[[], Any]], device: torch.device, pool: Any = None
    ) -> list[tuple[Callable[[], None], Any]]:
        for run in runs:
            run()
        return [self._record(run) for run in runs]

    def _record(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        with Tape() as tape:
            results = run()
        for result in results:
            if result is not None:  # a graph that is recorded has not run
                result.detach().fill_(torch.nan)
        self.recordings += 1

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay, results


def take_the_place_of_cuda(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Let language models record on a CPU."""
    stand = Stand()
    monkeypatch.setattr(linear, "_HERE", False)
    monkeypatch.setattr(cuda_graphs, "record", stand.record)
    monkeypatch.setattr(recording, "_DEVICE", "cpu")
    return stand
