"""Whether a saved topology is of the tensors that are sparse here, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

__all__ = ["check_tensors"]

Shapes = Mapping[str, tuple[int, ...]]


def check_tensors(saved: Shapes, here: Shapes, module: nn.Module | None = None) -> None:
    """Raise unless a saved topology is of the tensors that are sparse here.

    Args:
        saved: the shapes of its tensors by name.
        here: those of the sparse tensors.
        module: the one that these are of, to look for what is not sparse there.

    Raises:
        ValueError: it is of others. The message names them, and says of what the module has, but not sparse, why.
    """
    if dict(saved) == dict(here):
        return
    message = f"The saved topology is of other tensors than this module's sparse ones. {_difference(saved, here)}"
    own = {} if module is None else dict(module.named_parameters(remove_duplicate=False))
    dense = [name for name in saved if name not in here and name in own and tuple(own[name].shape) == saved[name]]
    frozen = [name for name in dense if not own[name].requires_grad]
    if frozen:
        message += (
            f" The module has {', '.join(frozen)}, but frozen, and what is frozen when the topology is made is not "
            "sparse. Freeze it afterwards, with Lightning in the module's `on_train_start`: its mask and its weights "
            "then stay as they are."
        )
    if left_out := [name for name in dense if name not in frozen]:
        message += (
            f" The module has {', '.join(left_out)}, but left out: by `include` or `exclude`, or because no optimizer "
            "trains it. Let what was sparse in the saved run be so here, and trained."
        )
    raise ValueError(message)


def _difference(saved: Shapes, here: Shapes) -> str:
    parts = [f"only in the saved one: {name} {saved[name]}" for name in saved if name not in here]
    parts += [f"only here: {name} {here[name]}" for name in here if name not in saved]
    parts += [
        f"{name} is {saved[name]} in the saved one and {here[name]} here"
        for name in saved
        if name in here and saved[name] != here[name]
    ]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
