"""Modules with zeros, packed, and compared with what they were."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.inference import compress

__all__ = ["close", "partly", "small", "sparse"]

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def sparse(module: Module, density: float = 0.33) -> Module:
    """Make a share of every matrix zero, and put the module into evaluation mode."""
    for parameter in module.parameters():
        if parameter.dim() == 2:
            parameter.mul_(torch.rand_like(parameter) < density)
    return module.eval()


def partly(kind: type[nn.RNNBase], dense: str, **options: Any) -> nn.RNNBase:
    """Sparse layers, of which the weights on one side (``ih`` or ``hh``) are dense."""
    layers = sparse(kind(20, 30, **options))
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            if name.startswith(f"weight_{dense}"):
                parameter.uniform_(-0.1, 0.1)
    return layers


def small(module: nn.Module, dtype: torch.dtype | None = None) -> Any:
    """Compress, small weights too."""
    return compress(module, dtype, smallest=1)


def close(a: Any, b: Any) -> bool:
    """Whether tensors, or tuples of them, are equal but for rounding."""
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.allclose(a, b, atol=2e-6)
    return all(close(x, y) for x, y in zip(a, b, strict=True))
