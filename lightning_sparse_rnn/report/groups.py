"""Groups of runs that differ only in their seeds, and names for the groups."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sparse_rnn.runs.reading import Run

__all__ = ["Group", "by_corpus", "differing_settings", "group_runs", "settings_of"]

# Where the text lies, whose name is compared, and what a run computes on; the name of a recipe, whose settings are
# compared one by one; and what configs offer to methods, which have it among their own settings where they take it.
_ASIDE = ("data.root", "trainer.accelerator", "trainer.devices", "chosen.experiment")
_OFFERED = ("sparsity", "prune_rate")
_ABSENT = "—"


@dataclass
class Group:
    """Runs of the same corpus and settings, one for each seed. ``name`` tells the group from all others."""

    runs: list[Run]
    name: str = ""

    @property
    def corpus(self) -> str:
        """The text that the runs were trained on."""
        return self.runs[0].corpus

    @property
    def method(self) -> str:
        """The name of the config of its method, or of its first run's folder where none was chosen."""
        return str(self.runs[0].settings.get("chosen.method") or self.runs[0].folder.name)

    @property
    def finished(self) -> list[Run]:
        """The runs that have results, one for each seed."""
        return list({repr(run.seed): run for run in reversed(self.runs) if run.results is not None}.values())[::-1]

    def values(self, name: str) -> list[float]:
        """The finite numbers that finished runs have under ``name`` in their results; a dot separates nested keys."""
        first, _, second = name.partition(".")
        found = [(run.results or {}).get(first) for run in self.finished]
        if second:
            found = [value.get(second) if isinstance(value, Mapping) else None for value in found]
        numbers = [float(value) for value in found if isinstance(value, (int, float)) and not isinstance(value, bool)]
        return [number for number in numbers if math.isfinite(number)]

    def by_seed(self, name: str) -> dict[str, float]:
        """The finite numbers that finished runs have under ``name`` in their results, by seed."""
        return {repr(run.seed): found[0] for run in self.finished if (found := Group([run]).values(name))}

    def mean(self, name: str) -> float:
        """The mean of :meth:`values`; infinity, which sorts last, if there are none."""
        found = self.values(name)
        return statistics.fmean(found) if found else float("inf")


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs that differ only in their seeds, name the groups, and sort them by corpus and test perplexity."""
    found: dict[tuple[Any, ...], Group] = {}
    for run in runs:
        key = (run.corpus, tuple(sorted((name, _told(value)) for name, value in settings_of(run).items())))
        found.setdefault(key, Group([])).runs.append(run)
    groups = list(found.values())
    for group in groups:
        group.runs.sort(key=lambda run: str(run.seed))
    _name(groups)
    return sorted(groups, key=lambda group: (group.corpus, group.mean("test_ppl"), group.name))


def by_corpus(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return the groups of each corpus, whose perplexities can be compared; the order stays."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.corpus, []).append(group)
    return found


def settings_of(run: Run) -> dict[str, Any]:
    """Return the settings that are the same in all runs of a group: all but seeds, places and devices."""
    return {
        name: value
        for name, value in run.settings.items()
        if name not in _ASIDE and name != "seed" and not name.endswith(".seed") and name.split(".")[0] not in _OFFERED
    }


def differing_settings(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return the settings in which groups differ, each with its value in every group.

    Settings may differ in the same way, for instance because one takes its value from another. The one with the
    shortest name then stands for all of them.
    """
    all_settings = [settings_of(group.runs[0]) for group in groups]
    names = sorted(
        {name for settings in all_settings for name in settings},
        key=lambda name: (name.endswith("_target_"), len(name), name),
    )
    found: dict[str, list[Any]] = {}
    seen: set[tuple[str, ...]] = set()
    for name in names:
        values = [settings.get(name, _ABSENT) for settings in all_settings]
        pattern = tuple(map(_told, values))
        if len(set(pattern)) > 1 and pattern not in seen:
            seen.add(pattern)
            found[name] = values
    return found


def _told(value: Any) -> str:
    """Return what tells values apart: 30 and 30.0 are one, but true is not 1."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_told, value))}]"
    return repr(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _name(groups: Sequence[Group]) -> None:
    for group in groups:
        group.name = group.method
    for name in {group.name for group in groups}:
        alike = [group for group in groups if group.name == name]
        corpora = {group.corpus for group in alike}
        for corpus in corpora:
            _tell_apart([group for group in alike if group.corpus == corpus])
        for group in alike if len(corpora) > 1 else ():
            group.name += f" on {group.corpus}"


def _tell_apart(alike: Sequence[Group]) -> None:
    """Add the settings in which the groups differ to their names.

    Where groups were given different configs of a kind (``chosen.optimizer``), the config's name stands for the
    settings in it (``optimizer.lr``).
    """
    if len(alike) == 1:
        return
    differing = differing_settings(alike)
    chosen = [setting.removeprefix("chosen.") for setting in differing if setting.startswith("chosen.")]
    if "optimizer" in chosen:  # its config also says whether weights are averaged
        chosen.append("callbacks.averaging")
    telling = [name for name in differing if not f"{name}.".startswith(tuple(f"{config}." for config in chosen))]
    of_name: dict[str, list[Group]] = {}
    for index, group in enumerate(alike):
        parts = [f"{setting.rpartition('.')[2]} {differing[setting][index]}" for setting in telling]
        group.name = ", ".join([group.name, *parts])
        of_name.setdefault(group.name, []).append(group)
    for same in of_name.values():  # those that were given one config of a kind, and then other settings
        if len(same) < len(alike):
            _tell_apart(same)
