"""The report's page: what stands on it, and how that becomes HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_sparse_rnn.report import perplexity_figures, topology_figures
from lightning_sparse_rnn.report.distances import Distances
from lightning_sparse_rnn.report.figure_style import Drawing
from lightning_sparse_rnn.report.groups import Group, by_corpus
from lightning_sparse_rnn.report.tables import (
    Table,
    accounting,
    budgets,
    comparisons,
    differences,
    distances_between,
    moves_by_tensor,
    runs_table,
    settings,
    texts,
)
from lightning_sparse_rnn.runs.folder import RESULTS
from lightning_sparse_rnn.runs.reading import Run

__all__ = ["Figures", "Report", "Section", "as_html", "build"]

_MOST_PANELS = 24
_MOST_DENSITIES = 8
_DISTANCE = (
    "The distance of two masks: of the positions in a row that are live in either mask, the share that is live in "
    "only one; mean over rows, then over weight tensors. In each recurrent matrix, rows are first matched so that "
    "they differ least (within one matrix, NNSTD of Liu et al. 2020); columns stay where they are, and so do the rows "
    "of embedding and decoder. Two networks that differ only in the order of their neurons are therefore not at "
    "distance 0. Two random masks of density d are about 1 − d/(2 − d) apart, 0.80 at a density of 0.33; less where "
    "rows are matched, above all in small matrices."
)


@dataclass
class Figures:
    """Figures that belong together, with a title and a text on how to read them."""

    title: str
    text: str
    drawings: list[Drawing]


@dataclass
class Section:
    """A part of the page. ``anchor`` names it in the page's links."""

    anchor: str
    title: str
    blocks: list[Table | Figures] = field(default_factory=list)


@dataclass
class Report:
    """All that the page says.

    Attributes:
        summary: a few lines that sum it up.
        problems: sentences on what is wrong with the runs as a whole, or with the paths that were given.
        sections: the parts of the page, without empty ones.
        left_out: sentences that say what is missing from the page, and why.
    """

    summary: list[str]
    problems: list[str]
    sections: list[Section]
    left_out: list[str]

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order of the page."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]


def build(
    groups: Sequence[Group], unreadable: Sequence[Run], distances: Distances, problems: Sequence[str] = ()
) -> Report:
    """Return the report on some runs.

    Args:
        groups: the runs in groups, as :func:`~lightning_sparse_rnn.report.groups.group_runs` returns them.
        unreadable: runs whose config could not be read, and which therefore belong to no group.
        distances: distances of the groups' topologies.
        problems: sentences that the report begins with.
    """
    left_out: list[str] = []
    corpora = by_corpus(groups)
    tables, beside = comparisons(groups), differences(groups)
    sections = []
    for number, (corpus, own) in enumerate(corpora.items(), start=1):
        title = "Perplexity" if len(corpora) == 1 else f"Corpus {number}: {corpus}"
        blocks = [*_present(tables.get(corpus)), *_present(beside.get(corpus)), *_perplexity(own, left_out)]
        sections.append(Section(f"perplexity-{number}", title, blocks))
    sections.append(Section("topology", "Where the weights are", _topology(groups, left_out)))
    sections.append(Section("distances", "How far topologies move", _distances(distances)))
    sections.append(Section("accounting", "What it costs", _present(accounting(groups))))
    sections.append(Section("settings", "Settings", _present(settings(groups))))
    sections.append(Section("runs", "Runs", [runs_table(groups, unreadable)]))
    if groups and not any(perplexity_figures.by_sparsity(own) for own in corpora.values()):
        left_out.append("Perplexity against sparsity: no method was run at more than one sparsity.")
    return Report(
        summary=_summary(groups, unreadable),
        problems=[*problems, *_mixed([c for c, own in corpora.items() if any(g.runs[0].metrics for g in own)])],
        sections=[section for section in sections if section.blocks],
        left_out=[*left_out, *distances.left_out],
    )


def as_html(report: Report, made: str, version: str) -> str:
    """Return the page as HTML that loads no other file.

    Args:
        report: what the page says.
        made: the date and time for its footer.
        version: this package's version, also for its footer.
    """
    environment = Environment(
        loader=PackageLoader("lightning_sparse_rnn.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(texts=texts, wrap=_may_break)
    environment.tests["number_like"] = _is_number
    return environment.get_template("page.html").render(report=report, made=made, version=version, Markup=Markup)


def _perplexity(groups: Sequence[Group], left_out: list[str]) -> list[Table | Figures]:
    blocks: list[Table | Figures] = []
    finished = [group for group in groups if group.values("test_ppl")]
    if len(finished) > 1:
        shown = _first(finished, 2 * _MOST_PANELS, "in the picture of test perplexities", left_out)
        blocks.append(Figures("", "", [perplexity_figures.final_perplexities(shown)]))
    if perplexity_figures.by_sparsity(groups):
        text = (
            "One line for each method. Where a method was run with several settings at one sparsity, the best of them "
            "counts. A small dense network stands at the sparsity at which a sparse one has as many weights; a "
            "dense network is a horizontal line."
        )
        blocks.append(Figures("Against sparsity", text, [perplexity_figures.over_sparsity(groups)]))
    trained = [group for group in groups if any(run.metrics for run in group.runs)]
    if trained:
        shown = _first(trained, _MOST_PANELS, "among the curves", left_out)
        means = {group.name: perplexity_figures.mean_curve(group, "val_ppl") for group in shown}
        limits = perplexity_figures.curve_limits(shown)
        text = (
            "Solid: validation, one line for each seed. Dotted: training, averaged over each epoch and over seeds. A "
            "triangle marks the first validation of averaged weights: from there on, all validations of that run are "
            "of averaged weights. Grey: mean validation of the other methods. All panels have the same scale."
        )
        blocks.append(
            Figures("While training", text, [perplexity_figures.curves(group, means, limits) for group in shown])
        )
    return blocks


def _topology(groups: Sequence[Group], left_out: list[str]) -> list[Table | Figures]:
    sparse = [group for group in groups if any(run.topology for run in group.runs)]
    blocks: list[Table | Figures] = list(_present(budgets(groups)))
    moving = [group for group in sparse if topology_figures.weights_move(group)]
    even = {group.name: words for group in moving if (words := topology_figures.moved_in_words(group))}
    still = [group.name for group in sparse if not topology_figures.layers_move(group)]
    # Lines that would lie on one another are said and not drawn.
    parts: list[tuple[str, str, str, list[str], list[Group], Callable[[Group], Drawing], int]] = [
        (
            "Layers over epochs",
            "among the layers' budgets",
            "The share of live weights in each weight tensor.",
            [f"No tensor's share ever changes in {', '.join(still)}: the table above has them."] if still else [],
            [group for group in sparse if group.name not in still],
            topology_figures.layer_densities,
            _MOST_PANELS,
        ),
        (
            "Gates over epochs",
            "among the gates' densities",
            "The share of live weights in the rows of each gate of a recurrent matrix. Methods in which these shares "
            "never change are not shown.",
            [],
            [group for group in sparse if topology_figures.gates_move(group)],
            topology_figures.densities,
            _MOST_DENSITIES,
        ),
        (
            "Pruned and regrown",
            "among the numbers of weights pruned and regrown",
            "How many weights topology updates pruned and regrew. Methods that do neither are not shown.",
            list(even.values()),
            [group for group in moving if group.name not in even],
            topology_figures.moved,
            _MOST_PANELS,
        ),
    ]
    for title, where, text, said, drawn, draw, most in parts:
        if drawn or said:
            shown = _first(drawn, most, where, left_out)
            blocks.append(Figures(title, " ".join([text, *said]), [draw(group) for group in shown]))
    return blocks


def _distances(found: Distances) -> list[Table | Figures]:
    blocks: list[Table | Figures] = []
    if found.moves:
        blocks.append(Figures("Over epochs", _DISTANCE, [topology_figures.distances_from_start(found.moves)]))
        blocks.append(moves_by_tensor(found.moves_by_tensor))
    if any(value is not None for row in found.between for value in row):
        text = (
            "The final topologies of the first seeds of each two methods; on the diagonal, of two seeds of one method. "
            "With the same seed, methods of the same allocation begin with the same topology. The more a "
            "square stands out from the page, the further apart; the scale is the whole one, from 0 to 1."
        )
        text = text if blocks else f"{_DISTANCE} {text}"
        blocks.append(Figures("Between runs", text, [topology_figures.distance_map(found.names, found.between)]))
        blocks.append(distances_between(found.names, found.between))
    return [block for block in blocks if not isinstance(block, Table) or block.rows]


def _first(groups: list[Group], most: int, where: str, left_out: list[str]) -> list[Group]:
    """Return the first ``most`` groups, and add a sentence to ``left_out`` if there are more."""
    if len(groups) > most:
        left_out.append(
            f"{len(groups) - most} of {len(groups)} methods {where}: the first {most} by test perplexity are shown. "
            "The tables have them all."
        )
    return groups[:most]


def _summary(groups: Sequence[Group], unreadable: Sequence[Run]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    finished = sum(run.results is not None for run in [*runs, *unreadable])
    lines = [f"{_count(len(runs) + len(unreadable), 'run')}, {finished} finished; {_count(len(groups), 'method')}"]
    lines[0] += " or settings; runs that differ only in their seeds are one." if len(groups) > 1 else "."
    for corpus, own in by_corpus(groups).items():
        best = min(own, key=lambda group: group.mean("test_ppl"))
        if math.isfinite(best.mean("test_ppl")):
            seeds = _count(len(best.values("test_ppl")), "seed")
            lines.append(f"Lowest test perplexity on {corpus}: {best.mean('test_ppl'):.2f}, {best.name} ({seeds}).")
    lines += _made_with([run for run in runs if run.results])
    return lines


def _made_with(runs: Sequence[Run]) -> list[str]:
    """Return a sentence on the versions that finished runs were made with, and on the days on which they ended."""
    versions: dict[str, list[str]] = {}
    days = set()
    for run in runs:
        found = (run.results or {}).get("versions")
        if isinstance(found, dict):
            for name, version in found.items():
                versions.setdefault(str(name), []).append(str(version))
            days.add(date.fromtimestamp((run.folder / RESULTS).stat().st_mtime).isoformat())
    if not versions:
        return []
    names = ", ".join(f"{name} {' or '.join(sorted(set(own)))}" for name, own in versions.items())
    when = min(days) if len(days) == 1 else f"{min(days)} to {max(days)}"
    return [f"Finished on {when} with {names}."]


def _mixed(corpora: Sequence[str]) -> list[str]:
    if len(corpora) < 2:
        return []
    text = f"These runs were trained on {len(corpora)} corpora, whose perplexities cannot be compared: "
    return [f"{text}{'; '.join(corpora)}."]


def _present(table: Table | None) -> list[Table | Figures]:
    return [] if table is None else [table]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _is_number(value: str) -> bool:
    return value.lstrip("+-")[:1].isdigit() and set(value) <= set("0123456789.,±→e-+ (%)")


def _may_break(text: Any) -> Markup:
    """Return escaped text in which a line may break after a dot, comma, slash, underscore or equals sign."""
    escaped = str(Markup.escape(str(text)))
    for mark in (".", ",", "/", "_", "="):
        escaped = escaped.replace(mark, f"{mark}<wbr>")
    return Markup(escaped)
