"""Whether a module's parameters say all that a call of it does."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module

__all__ = ["GLOBAL_HOOKS", "MODULE_HOOKS", "untouched"]

#: Where torch keeps the hooks of a module, and, in its own module, those of all modules.
MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in MODULE_HOOKS)


def untouched(module: nn.Module) -> bool:
    """Whether nobody has hooked a module, or all modules, or given it a ``forward`` of its own.

    A module that is not is to be called, whatever its parameters are.
    """
    own, of_all = vars(module), vars(torch_module)
    return not (any(map(own.get, ("forward", *MODULE_HOOKS))) or any(map(of_all.get, GLOBAL_HOOKS)))
