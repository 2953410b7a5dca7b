"""Which parameters of a module are made sparse."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["embeddings_of", "sparsifiable_parameters"]


def sparsifiable_parameters(
    module: nn.Module,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> dict[str, nn.Parameter]:
    """Return the parameters of ``module`` to make sparse, by name; a tied tensor stands under its first name.

    Raises:
        ValueError: there are none, or a pattern matches none of them; the message lists them. Or one is made by
            ``weight_norm``.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        matrix = parameter.dim() >= 2 and parameter.numel() > 0
        if matrix and parameter.requires_grad and parameter.is_floating_point():
            names.setdefault(parameter, []).append(name)
    if not names:
        raise ValueError(
            f"{type(module).__name__} has no trainable floating-point parameter with two or more dimensions: there is "
            "nothing to make sparse."
        )
    known = [name for aliases in names.values() for name in aliases]
    kept = _patterns("include", include, known)
    dropped = _patterns("exclude", exclude, known)
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
    return chosen


def embeddings_of(module: nn.Module) -> set[nn.Parameter]:
    """Return the weights of ``module`` that are looked up and nothing else: a tied decoder's are multiplied with."""
    owners: dict[nn.Parameter, set[bool]] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(isinstance(part, nn.Embedding | nn.EmbeddingBag))
    return {parameter for parameter, kinds in owners.items() if kinds == {True}}


def _patterns(option: str, patterns: str | Sequence[str] | None, known: Sequence[str]) -> list[str]:
    listed = [patterns] if isinstance(patterns, str) else list(patterns or ())
    for pattern in listed:
        if not _matches(known, [pattern]):
            below = f"{pattern}.*"  # a module's name, for all that is in it
            hint = f" Did you mean {below!r}?" if _matches(known, [below]) else ""
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
