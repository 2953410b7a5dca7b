"""Which parameters of a module are made sparse."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

__all__ = ["sparsifiable_parameters"]


def sparsifiable_parameters(
    module: nn.Module,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> dict[str, nn.Parameter]:
    """Return the parameters of ``module`` to make sparse, by name; a tied tensor stands under its first name.

    Raises:
        ValueError: there are none, or a pattern matches none of them; the message lists them.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if parameter.dim() >= 2 and parameter.requires_grad and parameter.is_floating_point():
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
    if not chosen:
        raise ValueError(f"`include` and `exclude` leave nothing to make sparse of: {', '.join(known)}.")
    return chosen


def _patterns(option: str, patterns: str | Sequence[str] | None, known: Sequence[str]) -> list[str]:
    listed = [patterns] if isinstance(patterns, str) else list(patterns or ())
    for pattern in listed:
        if not _matches(known, [pattern]):
            raise ValueError(
                f"`{option}` pattern {pattern!r} matches none of the parameters that can be sparse: {', '.join(known)}."
            )
    return listed


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
