"""Which parameters of a module are made sparse."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

from lightning_sparse_rnn.sparsity.shared_memory import check_memory

__all__ = ["embeddings_of", "names_of", "sparsifiable_parameters"]


#: Parameters of these are gains and shifts, in the shape of what they normalise.
_NORMS = (nn.LayerNorm, nn.GroupNorm, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []))


def sparsifiable_parameters(
    module: nn.Module,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> dict[str, nn.Parameter]:
    """Return the parameters of ``module`` to make sparse, by name; a tied tensor stands under its first name.

    These are the trainable floating-point ones with two or more dimensions, those of torch's norm layers excepted.

    >>> list(sparsifiable_parameters(nn.GRU(3, 5), exclude="*_hh_*"))
    ['weight_ih_l0']

    Raises:
        ValueError: there are none, or a pattern matches none of them; the message lists them. Or one is made by
            ``weight_norm``, has no shape yet, or shares its memory with another parameter.

    Warns:
        UserWarning: a trainable matrix is complex, and stays dense.
    """
    matrices: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if is_lazy(parameter):
            raise ValueError(
                f"{name} has no shape before {type(module).__name__} has seen a batch. Run one through it first, as in "
                "`module(batch)`, so that it is known what there is to make sparse."
            )
        if parameter.dim() >= 2 and parameter.numel() > 0 and parameter.requires_grad:
            matrices.setdefault(parameter, []).append(name)
    gains = {p for part in module.modules() if isinstance(part, _NORMS) for p in part.parameters(recurse=False)}
    names = {p: aliases for p, aliases in matrices.items() if p.is_floating_point() and p not in gains}
    if not names:
        raise ValueError(
            f"{type(module).__name__} has no trainable floating-point parameter with two or more dimensions: there is "
            "nothing to make sparse."
        )
    known = [name for aliases in names.values() for name in aliases]
    kept = _patterns("include", include, known, known)
    dropped = _patterns("exclude", exclude, known, [name for aliases in matrices.values() for name in aliases])
    chosen = {
        aliases[0]: parameter
        for parameter, aliases in names.items()
        if (include is None or _matches(aliases, kept)) and not _matches(aliases, dropped)
    }
    gains_and_directions = _weight_normed(module)
    if normed := [name for name, parameter in chosen.items() if parameter in gains_and_directions]:
        raise ValueError(
            f"{', '.join(normed)} belong to weights under weight_norm, which divides by the norm of each row: one "
            "without live weights would be NaN. Remove weight_norm, or leave these dense with `exclude`."
        )
    if not chosen:
        raise ValueError(f"`include` and `exclude` leave nothing to make sparse of: {', '.join(known)}.")
    check_memory(module, chosen)
    complex_ones = [
        aliases[0]
        for parameter, aliases in matrices.items()
        if parameter.is_complex() and (include is None or _matches(aliases, kept)) and not _matches(aliases, dropped)
    ]
    if complex_ones:
        warnings.warn(
            f"{', '.join(complex_ones)} are complex, and stay dense: only real floating-point matrices can be sparse. "
            "Name them in `exclude` if this is as it should be.",
            stacklevel=2,
        )
    return chosen


def names_of(module: nn.Module) -> dict[str, list[str]]:
    """Return all names of each parameter of ``module``, by its first."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {aliases[0]: aliases for aliases in names.values()}


def embeddings_of(module: nn.Module) -> set[nn.Parameter]:
    """Return the weights of ``module`` that are looked up and nothing else: a tied decoder's are multiplied with."""
    owners: dict[nn.Parameter, set[bool]] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(isinstance(part, nn.Embedding | nn.EmbeddingBag))
    return {parameter for parameter, kinds in owners.items() if kinds == {True}}


def _patterns(
    option: str, patterns: str | Sequence[str] | None, known: Sequence[str], allowed: Sequence[str]
) -> list[str]:
    listed = [patterns] if isinstance(patterns, str) else list(patterns or ())
    for pattern in listed:
        if not _matches(allowed, [pattern]):
            below = f"{pattern}.*"  # a module's name, for all that is in it
            hint = f" Did you mean {below!r}?" if _matches(allowed, [below]) else ""
            raise ValueError(
                f"`{option}` pattern {pattern!r} matches none of the parameters that can be sparse: "
                f"{', '.join(known)}.{hint}"
            )
    return listed


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _weight_normed(module: nn.Module) -> set[nn.Parameter]:
    """Return the gains and directions that torch's ``weight_norm``, the old one and the new, makes of weights."""
    found: set[nn.Parameter] = set()
    for part in module.modules():
        found.update(
            getattr(part, f"{hook.name}{suffix}")
            for hook in part._forward_pre_hooks.values()
            if isinstance(hook, WeightNorm)
            for suffix in ("_g", "_v")
        )
        if isinstance(part, ParametrizationList) and any(isinstance(each, _WeightNorm) for each in part):
            found.update(part.parameters(recurse=False))
    return found
