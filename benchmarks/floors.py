"""What the machine can do at best, measured: bytes moved and products a second."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from benchmarks.setting import Setting, Size
from benchmarks.turns import take_turns
from lightning_sparse_rnn.models.kernels.linear import linear

__all__ = ["Floors", "measure_floors"]


@dataclass(frozen=True)
class Floors:
    """Rates, and the times they make of an amount of work.

    Args:
        bytes_a_second: read and written, by the fastest of a few passes over tensors of the size of the weights.
        products_a_second: multiplications with their additions, of a batch's tokens with a layer's weights, by the
            faster of torch's product and this package's.
    """

    bytes_a_second: float
    products_a_second: float

    def moving(self, values: int, passes: int, what: str) -> tuple[float, str]:
        """Seconds to read or write that many float32 values so often."""
        return 4.0 * values * passes / self.bytes_a_second, f"{4 * passes} bytes a weight: {what}"

    def multiplying(self, size: Size, passes: int) -> tuple[float, str]:
        """Seconds to multiply a batch's tokens with the weights so often."""
        products = size.tokens * size.multiplied_weights * passes
        return products / self.products_a_second, f"{products / 1e9:.3g} G products"


@torch.no_grad()
def measure_floors(setting: Setting) -> Floors:
    """Measure both rates: the best that any turn reached."""
    size, device = setting.size, setting.device
    one, two = (torch.ones(size.sparse_weights, device=device) for _ in range(2))
    three = torch.empty_like(one)
    passes = {
        "scale": (2, lambda: one.mul_(1.0)),
        "add in place": (3, lambda: one.add_(two, alpha=1e-9)),
        "add": (3, lambda: torch.add(one, two, out=three)),
    }
    times = take_turns({name: run for name, (_, run) in passes.items()}, setting)
    moved = max(4.0 * count * len(one) / min(times[name]) for name, (count, _) in passes.items())
    tokens = torch.randn(size.tokens, size.width, device=device)
    weight = torch.randn(4 * size.width, size.width, device=device)
    out = tokens @ weight.T
    products = {"torch's": lambda: torch.mm(tokens, weight.T, out=out), "ours": lambda: linear(tokens, weight)}
    seconds = min(itertools.chain.from_iterable(take_turns(products, setting).values()))
    return Floors(moved, tokens.numel() * len(weight) / seconds)
