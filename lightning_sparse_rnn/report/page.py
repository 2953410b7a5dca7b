"""The report as one page: what stands on it, and as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_sparse_rnn.report import perplexity, topology
from lightning_sparse_rnn.report.distances import Distances
from lightning_sparse_rnn.report.drawing import Drawing
from lightning_sparse_rnn.report.groups import Group, by_corpus
from lightning_sparse_rnn.report.runs import Run
from lightning_sparse_rnn.report.tables import (
    Table,
    accounting,
    budgets,
    comparisons,
    distances_between,
    moves_by_tensor,
    runs_table,
    settings,
    texts,
)

__all__ = ["Figures", "Report", "Section", "as_html", "build"]

_MOST_PANELS = 24
_MOST_DENSITIES = 8


@dataclass
class Figures:
    """Figures that are read together."""

    title: str
    text: str
    drawings: list[Drawing]


@dataclass
class Section:
    """A part of the page. ``anchor`` is its address within the page."""

    anchor: str
    title: str
    blocks: list[Table | Figures] = field(default_factory=list)


@dataclass
class Report:
    """All that the page says.

    Attributes:
        summary: it in a few lines.
        problems: what was wrong with what was asked for.
        sections: those that have something to say.
        left_out: what is not there, and why.
    """

    summary: list[str]
    problems: list[str]
    sections: list[Section]
    left_out: list[str]

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]


def build(
    groups: Sequence[Group], unreadable: Sequence[Run], distances: Distances, problems: Sequence[str] = ()
) -> Report:
    """Put the report on these runs together.

    Args:
        groups: of :func:`~lightning_sparse_rnn.report.groups.group_runs`.
        unreadable: runs without a config, which belong to no group.
        distances: of the groups' topologies.
        problems: what else is to be said first.
    """
    left_out: list[str] = []
    corpora = by_corpus(groups)
    tables = comparisons(groups)
    sections = []
    for number, (corpus, own) in enumerate(corpora.items(), start=1):
        title = "Perplexity" if len(corpora) == 1 else f"Corpus {number}: {corpus}"
        blocks = [*_present(tables.get(corpus)), *_perplexity(own, left_out)]
        sections.append(Section(f"perplexity-{number}", title, blocks))
    sections.append(Section("topology", "Where the weights are", _topology(groups, left_out)))
    sections.append(Section("distances", "How far topologies go", _distances(distances)))
    sections.append(Section("accounting", "What it costs", _present(accounting(groups))))
    sections.append(Section("settings", "Settings", _present(settings(groups))))
    sections.append(Section("runs", "Runs", [runs_table(groups, unreadable)]))
    if groups and not any(perplexity.by_sparsity(own) for own in corpora.values()):
        left_out.append("Perplexity against sparsity: no method was run at more than one sparsity.")
    return Report(
        summary=_summary(groups, unreadable),
        problems=[*problems, *_mixed(list(corpora))],
        sections=[section for section in sections if section.blocks],
        left_out=[*left_out, *distances.left_out],
    )


def as_html(report: Report, made: str, version: str) -> str:
    """Return the page; it needs nothing but itself. ``made`` says when, ``version`` by which."""
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
        blocks.append(Figures("", "", [perplexity.final_perplexities(shown)]))
    if perplexity.by_sparsity(groups):
        text = (
            "A line a method. Where a method has several settings at one sparsity, the best of them counts; a small "
            "dense network stands at the sparsity at which a sparse one has as many weights."
        )
        blocks.append(Figures("Against sparsity", text, [perplexity.over_sparsity(groups)]))
    trained = [group for group in groups if any(run.metrics for run in group.runs)]
    if trained:
        shown = _first(trained, _MOST_PANELS, "among the curves", left_out)
        means = {group.name: perplexity.mean_curve(group, "val_ppl") for group in shown}
        limits = perplexity.curve_limits(shown)
        text = (
            "Solid: validation, each seed; dotted: training, averaged over the epoch and over seeds. A triangle marks "
            "the first validation of averaged weights, and grey lines are the means of the other methods. All panels "
            "have the same scale."
        )
        blocks.append(Figures("While training", text, [perplexity.curves(group, means, limits) for group in shown]))
    return blocks


def _topology(groups: Sequence[Group], left_out: list[str]) -> list[Table | Figures]:
    sparse = [group for group in groups if any(run.topology for run in group.runs)]
    firsts = {group.name: next(run for run in group.runs if run.topology) for group in sparse}
    blocks: list[Table | Figures] = list(_present(budgets(groups)))
    moving = [group for group in sparse if topology.gates_move(firsts[group.name])]
    parts: list[tuple[str, str, str, list[Group], Callable[[Group], Drawing], int]] = [
        (
            "Layers over epochs",
            "among the layers' budgets",
            "The share of each weight tensor's positions that is live.",
            sparse,
            topology.layer_densities,
            _MOST_PANELS,
        ),
        (
            "Gates over epochs",
            "among the gates' densities",
            "Rows of a recurrent matrix belong to gates. Methods whose gates keep their numbers of live weights are "
            "not shown.",
            moving,
            topology.densities,
            _MOST_DENSITIES,
        ),
        (
            "Pruned and regrown",
            "among the pruned and regrown",
            "Weights that each topology update took away and gave back. Methods that change nothing are not shown.",
            [group for group in sparse if topology.weights_move(firsts[group.name])],
            topology.moved,
            _MOST_PANELS,
        ),
    ]
    for title, where, text, drawn, draw, most in parts:
        if drawn:
            shown = _first(drawn, most, where, left_out)
            blocks.append(Figures(title, text, [draw(group) for group in shown]))
    return blocks


def _distances(found: Distances) -> list[Table | Figures]:
    blocks: list[Table | Figures] = []
    if found.moves:
        text = (
            "Mean over tensors of the normalised distance of Liu et al. (2020): neurons are matched so that two "
            "topologies differ least, and what then differs is counted. Two random topologies of density d are about "
            "1 − d/(2 − d) apart, 0.80 at a density of 0.33."
        )
        blocks.append(Figures("Over epochs", text, [topology.distances_from_start(found.moves)]))
        blocks.append(moves_by_tensor(found.moves_by_tensor))
    if any(value is not None for row in found.between for value in row):
        text = (
            "The first seed of each method; on the diagonal, two seeds of one method. Methods of one allocation begin, "
            "for one seed, with the same topology. The darker the further."
        )
        blocks.append(Figures("Between runs", text, [topology.distance_map(found.names, found.between)]))
        blocks.append(distances_between(found.names, found.between))
    return [block for block in blocks if not isinstance(block, Table) or block.rows]


def _first(groups: list[Group], most: int, where: str, left_out: list[str]) -> list[Group]:
    """Return as many as there is room for, and say so if these are not all."""
    if len(groups) > most:
        left_out.append(
            f"{len(groups) - most} of {len(groups)} methods {where}: the first {most} by test perplexity are shown. "
            "The tables have all."
        )
    return groups[:most]


def _summary(groups: Sequence[Group], unreadable: Sequence[Run]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    finished = sum(run.results is not None for run in [*runs, *unreadable])
    lines = [f"{_count(len(runs) + len(unreadable), 'run')}, {finished} finished; {_count(len(groups), 'method')}"]
    lines[0] += " or settings, told apart by all but their seeds." if len(groups) > 1 else "."
    for corpus, own in by_corpus(groups).items():
        best = min(own, key=lambda group: group.mean("test_ppl"))
        if math.isfinite(best.mean("test_ppl")):
            seeds = _count(len(best.values("test_ppl")), "seed")
            lines.append(f"Lowest test perplexity on {corpus}: {best.mean('test_ppl'):.2f}, {best.name} ({seeds}).")
    return lines


def _mixed(corpora: Sequence[str]) -> list[str]:
    if len(corpora) < 2:
        return []
    return [f"These runs are of {len(corpora)} corpora, whose perplexities cannot be compared: {'; '.join(corpora)}."]


def _present(table: Table | None) -> list[Table | Figures]:
    return [] if table is None else [table]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _is_number(value: str) -> bool:
    return value[:1].isdigit() and set(value) <= set("0123456789.,±→e-+ ")


def _may_break(text: Any) -> Markup:
    """Let long names go on in a new line after a dot, a comma, a slash or an underscore."""
    escaped = str(Markup.escape(str(text)))
    for mark in (".", ",", "/", "_", "="):
        escaped = escaped.replace(mark, f"{mark}<wbr>")
    return Markup(escaped)
