"""What stands on the report's page, section by section."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date

import matplotlib as mpl

from lightning_sparse_rnn.report import distance_figures, perplexity_figures, topology_figures
from lightning_sparse_rnn.report.distances import Distances
from lightning_sparse_rnn.report.figure_style import Drawing
from lightning_sparse_rnn.report.groups import Group, by_corpus
from lightning_sparse_rnn.report.mask_figures import mask_figures, views_of
from lightning_sparse_rnn.report.page import Figures, Report, Section
from lightning_sparse_rnn.report.table import Table
from lightning_sparse_rnn.report.tables import (
    accounting,
    budgets,
    comparisons,
    differences,
    distances_between,
    moves_by_tensor,
    runs_table,
    settings,
)
from lightning_sparse_rnn.runs.folder import RESULTS
from lightning_sparse_rnn.runs.mask_picture import MaskView
from lightning_sparse_rnn.runs.picture import ONE_SIZE
from lightning_sparse_rnn.runs.reading import Run
from lightning_sparse_rnn.utilities.counting import counted

__all__ = ["build"]

_MOST_PANELS = 24
_MOST_DENSITIES = 8
_MOST_MASKS = 11  # and their scale
_DISTANCE = (
    "The distance of two masks: of the positions in a row that are live in either mask, the share that is live in "
    "only one; mean over rows, then over weight tensors. In each recurrent matrix, rows are first matched so that "
    "they differ least (within one matrix, NNSTD of Liu et al. 2020); columns stay where they are, and so do the rows "
    "of embedding and decoder. Two networks that differ only in the order of their neurons are therefore not at "
    "distance 0. Two random masks of density d are about 1 − d/(2 − d) apart, 0.80 at a density of 0.33; less where "
    "rows are matched, above all in small matrices."
)


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
    with mpl.rc_context(ONE_SIZE):
        return _built(groups, unreadable, distances, problems)


def _built(groups: Sequence[Group], unreadable: Sequence[Run], distances: Distances, problems: Sequence[str]) -> Report:
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
        problems=[
            *problems,
            *_mixed([corpus for corpus, own in corpora.items() if any(group.runs[0].metrics for group in own)]),
            *_diverged(groups),
        ],
        sections=[section for section in sections if section.blocks],
        left_out=[*left_out, *distances.left_out],
    )


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
    drawn = [group for group in trained if perplexity_figures.curve_limits([group])]
    if empty := [group.name for group in _without(trained, drawn)]:
        left_out.append(
            f"{len(empty)} of {len(trained)} methods among the curves: {', '.join(empty)}, without any finite "
            "perplexity after the first epoch."
        )
    if drawn:
        shown = _first(drawn, _MOST_PANELS, "among the curves", left_out)
        means = {group.name: perplexity_figures.mean_curve(group, "val_ppl") for group in shown}
        limits = perplexity_figures.curve_limits(shown)
        text = (
            "Solid: validation, one line for each seed. Dotted: training, averaged over each epoch and over seeds. A "
            "triangle marks the first validation of averaged weights: from there on, all validations of that run are "
            "of averaged weights. Grey: mean validation of the other methods. All panels have the same scale."
        )
        drawings = [
            perplexity_figures.curves(group, means, limits, keyed=not index) for index, group in enumerate(shown)
        ]
        blocks.append(Figures("While training", text, drawings))
    return blocks


def _topology(groups: Sequence[Group], left_out: list[str]) -> list[Table | Figures]:
    sparse = [group for group in groups if any(run.topology for run in group.runs)]
    blocks: list[Table | Figures] = list(_present(budgets(groups)))
    moving = [group for group in sparse if topology_figures.weights_move(group)]
    even = [group for group in moving if topology_figures.moves_evenly(group)]
    still = [group for group in sparse if not topology_figures.layers_move(group)]
    alike = [group for group in sparse if group not in still and not topology_figures.layers_differ(group)]
    trading = [group for group in sparse if topology_figures.gates_move(group)]
    together = [group for group in trading if not topology_figures.gates_differ(group)]
    # Lines that would lie on one another are said and not drawn.
    parts: list[tuple[str, str, list[str], list[Group], Callable[[Group], Drawing], int]] = [
        (
            "Layers over epochs",
            "among the layers' budgets",
            [
                "The share of live weights in each weight tensor.",
                _of(still, "No tensor's share ever changes in {}: the table above has them."),
                _of(alike, "All tensors always have the same share, to within 0.01, in {}: see the table."),
            ],
            _without(sparse, still, alike),
            topology_figures.layer_densities,
            _MOST_PANELS,
        ),
        (
            "Gates over epochs",
            "among the gates' densities",
            [
                "The share of live weights in the rows of each gate of a recurrent matrix. Methods in which these "
                "shares never change are not shown.",
                _of(together, "The gates of each matrix always have the same share, to within 0.01, in {}."),
            ],
            _without(trading, together),
            topology_figures.densities,
            _MOST_DENSITIES,
        ),
        (
            "Pruned and regrown",
            "among the numbers of weights pruned and regrown",
            [
                "How many weights topology updates pruned and regrew. Methods that do neither are not shown.",
                topology_figures.moved_in_words(even) if even else "",
            ],
            _without(moving, even),
            topology_figures.moved,
            _MOST_PANELS,
        ),
    ]
    for title, where, said, drawn, draw, most in parts:
        if drawn or any(said[1:]):
            shown = _first(drawn, most, where, left_out)
            blocks.append(Figures(title, " ".join(filter(None, said)), [draw(group) for group in shown]))
    return [*blocks, *_masks(sparse, left_out)]


def _masks(groups: list[Group], left_out: list[str]) -> list[Table | Figures]:
    """Return pictures of the masks of one matrix, the same one in all networks of a kind."""
    found = [views for group in groups if (views := views_of(group)) is not None]
    if not found:
        return []
    cells = " or ".join(sorted({_cells(views.shown[0]) for views in found[:_MOST_MASKS]}))
    if len(found) > _MOST_MASKS:
        left_out.append(f"{len(found) - _MOST_MASKS} of {len(found)} methods among the pictures of masks.")
    text = (
        f"One recurrent matrix ({', '.join(sorted({views.matrix for views in found}))}) in the first run of each "
        f"method, in cells of {cells} weights; its gates are parted by lines, and each has its share of live weights "
        "beside it. Where nothing has changed there is one picture."
    )
    return [Figures("Masks", text, mask_figures(found[:_MOST_MASKS]))]


def _cells(view: MaskView) -> str:
    rows, columns = (round(size / cells) for size, cells in zip(view.shape, view.cells.shape, strict=True))
    return f"about {rows} × {columns}"


def _of(groups: Sequence[Group], sentence: str) -> str:
    """Return a sentence on some groups, or nothing if there are none."""
    return sentence.format(", ".join(group.name for group in groups)) if groups else ""


def _without(groups: Sequence[Group], *others: Sequence[Group]) -> list[Group]:
    said = {id(group) for some in others for group in some}
    return [group for group in groups if id(group) not in said]


def _distances(found: Distances) -> list[Table | Figures]:
    blocks: list[Table | Figures] = []
    if found.moves:
        blocks.append(Figures("Over epochs", _DISTANCE, [distance_figures.distances_from_start(found.moves)]))
    if any(value is not None for row in found.between for value in row):
        text = (
            "The final topologies of the first seeds of each two methods; on the diagonal, of two seeds of one method. "
            "With the same seed, methods of the same allocation begin with the same topology. The scale of the shades "
            "is the whole one, from 0 to 1."
        )
        text = text if blocks else f"{_DISTANCE} {text}"
        blocks.append(Figures("Between runs", text, [distance_figures.distance_map(found.names, found.between)]))
    if found.moves:
        blocks.append(moves_by_tensor(found.moves_by_tensor))
    if any(value is not None for row in found.between for value in row):
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
    lines = [f"{counted(len(runs) + len(unreadable), 'run')}, {finished} finished; {counted(len(groups), 'method')}"]
    lines[0] += " or settings; runs that differ only in their seeds are one." if len(groups) > 1 else "."
    for corpus, own in by_corpus(groups).items():
        best = min(own, key=lambda group: group.mean("test_ppl"))
        if math.isfinite(best.mean("test_ppl")):
            seeds = counted(len(best.values("test_ppl")), "seed")
            lines.append(f"Lowest test perplexity on {corpus}: {best.mean('test_ppl'):.2f}, {best.name} ({seeds}).")
    lines += _made_with([run for run in runs if run.results])
    return lines


def _made_with(runs: Sequence[Run]) -> list[str]:
    """Return a sentence on what finished runs were made with and computed on, and on the days on which they ended."""
    versions: dict[str, set[str]] = {}
    days, machines = set(), set()
    for run in runs:
        results = run.results or {}
        found = results.get("versions")
        for name, version in found.items() if isinstance(found, dict) else ():
            versions.setdefault(str(name), set()).add(str(version))
        if isinstance(results.get("machine"), str):
            machines.add(results["machine"])
        days.add(date.fromtimestamp((run.folder / RESULTS).stat().st_mtime).isoformat())
    if not versions:
        return []
    said = ", ".join(f"{name} {' or '.join(sorted(own))}" for name, own in versions.items())
    when = min(days) if len(days) == 1 else f"{min(days)} to {max(days)}"
    where = f", on {' or '.join(sorted(machines))}" if machines else ""
    return [f"Finished on {when} with {said}{where}."]


def _mixed(corpora: Sequence[str]) -> list[str]:
    if len(corpora) < 2:
        return []
    text = f"These runs were trained on {len(corpora)} corpora, whose perplexities cannot be compared: "
    return [f"{text}{'; '.join(corpora)}."]


def _diverged(groups: Sequence[Group]) -> list[str]:
    """Return a sentence if any finished run has no finite test perplexity: means over seeds are then of the others."""
    counts = {group.name: len(group.finished) - len(group.values("test_ppl")) for group in groups}
    said = [f"{name} ({counted(count, 'run')})" for name, count in counts.items() if count]
    if not said:
        return []
    return [f"Means, deviations and differences leave out runs without a finite test perplexity: {', '.join(said)}."]


def _present(table: Table | None) -> list[Table | Figures]:
    return [] if table is None else [table]
