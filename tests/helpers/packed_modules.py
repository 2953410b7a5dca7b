"""Modules with zeros, to be packed."""

from typing import TypeVar

import torch
from torch import nn

__all__ = ["sparse"]

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def sparse(module: Module, density: float = 0.33) -> Module:
    """Make a share of every matrix zero, and put the module into evaluation mode."""
    for parameter in module.parameters():
        if parameter.dim() == 2:
            parameter.mul_(torch.rand_like(parameter) < density)
    return module.eval()
