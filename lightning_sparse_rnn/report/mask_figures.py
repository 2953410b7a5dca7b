"""Figures of masks themselves: one recurrent matrix of each method, at the start and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from lightning_sparse_rnn.report.figure_style import Drawing, as_svg, panel_title
from lightning_sparse_rnn.report.groups import Group
from lightning_sparse_rnn.report.series import short
from lightning_sparse_rnn.runs.mask_picture import MaskView, highest, plot_masks, views

__all__ = ["Views", "mask_figures", "views_of"]

_WIDTH, _HEIGHT = 3.7, 2.9
_LETTER, _TOP, _BETWEEN, _EDGE = 0.068, 0.5, 0.42, 0.06  # inches
_MOST_LEFT = 1.8  # for the names of gates; longer ones are cut


@dataclass(frozen=True)
class Views:
    """Views of one matrix in the first run of a group that has kept its masks."""

    group: str
    matrix: str
    shown: list[MaskView]


def views_of(group: Group) -> Views | None:
    """Return the views of a group; ``None`` if no run of it has kept masks of a matrix with gates."""
    for run in group.runs:
        found = views(run.folder, run.topology)
        if found is not None:
            return Views(group.name, short(found[0]), found[1])
    return None


def mask_figures(all_views: Sequence[Views]) -> list[Drawing]:
    """Return the scale that all figures share, and a figure for each group."""
    top = highest(view for views in all_views for view in views.shown)
    return [_scale(top), *(_masks(views, top) for views in all_views)]


def _scale(top: float) -> Drawing:
    figure = Figure(figsize=(_WIDTH, 0.7))
    axes = figure.add_axes((0.05, 0.4, 0.9, 0.22))
    axes.imshow(np.linspace(0, top, 24)[None], cmap="Blues", aspect="auto", interpolation="none", extent=(0, top, 0, 1))
    axes.set_yticks([])
    axes.set_title("share of live weights in a cell", loc="left")
    says = f"The scale of the masks' figures: shares of live weights from 0 to {top:.2f}"
    return Drawing(as_svg(figure, says), "scale")


def _masks(found: Views, top: float) -> Drawing:
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    panel_title(figure, found.group)
    left = min(0.1 + _LETTER * max(len(f"{gate} 0.00") for gate in found.shown[0].gates), _MOST_LEFT)
    width = (_WIDTH - left - _BETWEEN - _EDGE) / 2
    height = _HEIGHT - _TOP - _EDGE
    panels = [
        figure.add_axes(
            ((left + index * (width + _BETWEEN)) / _WIDTH, _EDGE / _HEIGHT, width / _WIDTH, height / _HEIGHT)
        )
        for index in range(len(found.shown))
    ]
    plot_masks(panels, found.shown, top)
    gates = "; ".join(
        f"{view.when}: {', '.join(f'{gate} {share:.2f}' for gate, share in view.gates.items())}" for view in found.shown
    )
    says = f"Where the live weights of {found.matrix} are in {found.group}, shares by gate {gates}"
    return Drawing(as_svg(figure, says), "panel")
