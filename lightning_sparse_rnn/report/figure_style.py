"""What the report's figures have in common: their look, their scales, and how they become part of the page."""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_sparse_rnn.runs.picture import ONE_SIZE, STYLES, count_epochs

__all__ = [
    "DARK",
    "GREY",
    "HALF",
    "INK",
    "Drawing",
    "as_svg",
    "bare",
    "cut",
    "label_ends",
    "lone",
    "marked_line",
    "panel_axes",
    "panel_title",
]

INK, GREY = "#08306b", "#b8b8b8"
#: What becomes of a figure's colours on a dark page: all of those that are used for lines and texts.
DARK = {
    "#000000": "#e6eaef",
    "#08306b": "#8ab8f5",
    "#d95f0e": "#f59b5c",
    "#3f8f4f": "#74c585",
    "#b06fc0": "#d3a0e2",
    "#8c8c8c": "#a3abb4",
    "#b8b8b8": "#56606b",
    "#b0b0b0": "#8a949f",
    "#666666": "#a7b1bd",
    "#999999": "#7c8792",
}
#: The width of a figure that fills half of a line of the page, in inches; three panels fill a line.
HALF = 5.7
_PANEL = (3.7, 2.6)
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.68, 0.12, 0.27, 0.45
_LONGEST = 42  # characters in a line of a title
_PIXELS = 96  # of an inch on a page, so that texts have one size in all figures
_MARKERS = "os^"
_SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.sans-serif": ["DejaVu Sans"]}
_PLACES = re.compile(r'\s(?:d|x|y|transform|points|width|height)="[^"]*"')
_NUMBERS = re.compile(r"-?\d+\.\d{3,}")
_COLOR = re.compile(r"(?<=: )#[0-9a-f]{6}(?=[;\"])")


@dataclass
class Drawing:
    """A finished figure.

    Attributes:
        svg: an ``<svg>`` element for the page.
        kind: ``"wide"`` for a figure that takes half of a line of the page, ``"panel"`` for one of many of a kind,
            ``"scale"`` for one that stands above the others and says what their colours mean.
    """

    svg: str
    kind: Literal["wide", "panel", "scale"]


def as_svg(figure: Figure, says: str) -> str:
    """Return the figure as an ``<svg>`` element for a page with others: its text stays text, its names are its own.

    Its colours become variables of the page, those of :data:`DARK`. ``says`` tells those who cannot see the figure what
    it shows.
    """
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # With a fixed salt names are the same in every process, and the same runs give the same page.
    with mpl.rc_context({**ONE_SIZE, **_SVG}):
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg, count=5).replace("xlink:href", "href")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # how lines are joined: the page has it once for all
    svg = _COLOR.sub(lambda color: _variable(color.group()), svg)
    svg = _PLACES.sub(lambda place: _NUMBERS.sub(_rounded, place.group()), svg)
    # A page holds many figures: none may refer to something in another.
    mark = f"f{hashlib.blake2b((says + svg).encode(), digest_size=5).hexdigest()}-"
    svg = re.sub(r'(\sid="|href="#|url\(#)', lambda found: found.group(1) + mark, svg)
    size = f'style="width: {figure.get_figwidth() * _PIXELS:.0f}px"'
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(says)}" {size}', 1).strip()


def panel_axes(title: str) -> tuple[Figure, Axes]:
    """Return a small figure over epochs and its axes: one of many that stand side by side."""
    figure = Figure(figsize=_PANEL)
    width, height = _PANEL
    top = _TOP * (1.6 if len(title) > _LONGEST else 1.0)
    axes = figure.add_axes(
        (_LEFT / width, _BOTTOM / height, (width - _LEFT - _RIGHT) / width, (height - top - _BOTTOM) / height)
    )
    panel_title(figure, title)
    axes.set_xlabel("epochs trained")
    count_epochs(axes, 6)
    axes.grid(alpha=0.25)
    bare(axes)
    return figure, axes


def panel_title(figure: Figure, title: str) -> None:
    """Write a title at the left edge of a panel, not of its axes, because names can be long."""
    figure.text(0.02, 0.985, _broken(title), va="top", fontweight="bold")


def marked_line(index: int) -> dict[str, Any]:
    """Return the looks of a line with a marker at each point: no two alike among the first 18."""
    marker = _MARKERS[index // len(STYLES) % len(_MARKERS)]
    return {"marker": marker, "markersize": 4, **STYLES[index % len(STYLES)]}


def lone(points: Sequence[Any]) -> dict[str, Any]:
    """Return the looks of a line through ``points``: a marker where there is one of them, which is no line."""
    return {"marker": "o", "markersize": 4} if len(points) == 1 else {}


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write names to the right of the ends of their lines, moved apart where they would overlap.

    The limits of the axes must have been set.
    """
    if not ends:
        return
    to_share = axes.transLimits + axes.transAxes.inverted() + axes.transAxes
    names = sorted(ends, key=lambda name: ends[name][1])
    at = [float(to_share.transform(axes.transScale.transform(ends[name]))[1]) for name in names]
    height = axes.get_position().height * axes.figure.get_figheight() * 72  # type: ignore[union-attr]
    for name, y in zip(names, _spread(at, 1.3 * ONE_SIZE["font.size"] / height), strict=True):
        axes.annotate(
            cut(name, 26),
            ends[name],
            xytext=(1.04, y),
            textcoords="axes fraction",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def _spread(at: Sequence[float], gap: float) -> list[float]:
    """Return ascending heights between 0 and 1, moved so that neighbours are ``gap`` apart, or less without room."""
    if (len(at) - 1) * gap >= 1:
        gap = 1 / max(1, len(at) - 1)
    moved: list[float] = []
    for y in at:
        moved.append(max(y, moved[-1] + gap) if moved else max(y, 0.0))
    top = 1.0
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], top)
        top = moved[index] - gap
    return moved


def cut(name: str, length: int) -> str:
    """Return a name in at most ``length`` characters. A longer one loses its middle: names often differ at the end."""
    if len(name) <= length:
        return name
    return f"{name[: (length - 1) // 2]}…{name[-(length // 2) :]}"


def _variable(color: str) -> str:
    return f"var(--c{color[1:]})" if color in DARK else color


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}"


def _broken(title: str) -> str:
    """Return a title in at most two lines, cut if it is longer."""
    if len(title) <= _LONGEST:
        return title
    at = title.rfind(" ", 0, _LONGEST)
    first, second = (title[:at], title[at + 1 :]) if at > 0 else (title[:_LONGEST], title[_LONGEST:])
    return f"{first}\n{second if len(second) <= _LONGEST else second[: _LONGEST - 1] + '…'}"


def bare(axes: Axes) -> None:
    """Remove the top and right edges of the axes, which carry no scale."""
    axes.spines[["top", "right"]].set_visible(False)
