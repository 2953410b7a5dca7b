"""Which runs a command that tries variants is to make."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.variant_results import Variant

__all__ = ["check_known", "runs_of"]


def check_known(parser: argparse.ArgumentParser, names: Sequence[str], variants: Mapping[str, Variant]) -> None:
    """End the command with an error where a name is that of no variant."""
    if unknown := set(names) - set(variants):
        parser.error(f"Expected variants among {', '.join(variants)}, got {', '.join(sorted(unknown))}.")


def runs_of(given: argparse.Namespace, variants: Mapping[str, Variant], always: Sequence[str]) -> dict[Path, list[str]]:
    """Return the overrides of each run, by its folder: of every seed, the variants asked for, or else all."""
    return {
        given.output / f"{name}.{seed}": [*always, *variants[name].overrides, f"seed={seed}", *given.set]
        for seed in given.seeds
        for name in given.variants or variants
    }
