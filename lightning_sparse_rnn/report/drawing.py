"""What the report's figures have in common. Each says what it shows, and reads the same without colour."""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

__all__ = ["GREY", "INK", "Drawing", "as_svg", "bare", "cut", "label_ends", "log_perplexity", "panel", "plain", "wide"]

INK, GREY = "#08306b", "#b8b8b8"
_PANEL = (3.4, 2.6)
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.6, 0.12, 0.27, 0.45
_LONGEST = 46  # of a title's line
_PLACES = re.compile(r'\s(?:d|x|y|transform|points|width|height)="[^"]*"')
_NUMBERS = re.compile(r"-?\d+\.\d{3,}")


@dataclass
class Drawing:
    """A figure that is done.

    Attributes:
        svg: ready to stand in a page.
        kind: ``"wide"``, or ``"panel"`` for one of many of a kind.
    """

    svg: str
    kind: str


def wide(figure: Figure, says: str) -> Drawing:
    """Return a figure that has a line of the page to itself. ``says`` is for those who cannot see it."""
    return Drawing(as_svg(figure, says), "wide")


def panel(figure: Figure, says: str) -> Drawing:
    """Return a figure that stands among others of its kind."""
    return Drawing(as_svg(figure, says), "panel")


def as_svg(figure: Figure, says: str) -> str:
    """Return the figure as an ``<svg>`` that can stand in a page with others: text as text, names of its own."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt makes names that are equal in every process, so that the same runs give the same page.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg, count=5).replace("xlink:href", "href")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # of lines' joints; the page says it for all
    svg = _PLACES.sub(lambda place: _NUMBERS.sub(_rounded, place.group()), svg)
    # A page holds many: what one refers to by name must not be another's.
    mark = f"f{hashlib.blake2b((says + svg).encode(), digest_size=5).hexdigest()}-"
    svg = re.sub(r'(\sid="|href="#|url\(#)', lambda found: found.group(1) + mark, svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(says)}"', 1).strip()


def plain(title: str, log: bool = False) -> tuple[Figure, Axes]:
    """Return a small figure over epochs, one of many that stand side by side."""
    figure = Figure(figsize=_PANEL)
    width, height = _PANEL
    top = _TOP * (1.6 if len(title) > _LONGEST else 1.0)
    axes = figure.add_axes(
        (_LEFT / width, _BOTTOM / height, (width - _LEFT - _RIGHT) / width, (height - top - _BOTTOM) / height)
    )
    # From the left edge of the figure, not of the axes: names can be long.
    figure.text(0.02, 0.985, _broken(title), fontsize=8.5, va="top", fontweight="bold")
    axes.set_xlabel("epochs trained", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.tick_params(labelsize=7.5)
    axes.grid(alpha=0.25)
    if log:
        axes.set_yscale("log")
    bare(axes)
    return figure, axes


def log_perplexity(axes: Axes, limits: tuple[float, float] | None) -> None:
    """Give the axes a logarithmic scale from and to ``limits``, with a few round numbers."""
    axes.set_yscale("log")
    if limits is not None:
        axes.set_ylim(*limits)
    low, high = axes.get_ylim()
    steps = (1, 1.5, 2, 3, 5, 7) if high < 6 * low else (1, 2, 5) if high < 100 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e5 else f"{value:.0e}")
    axes.tick_params(axis="y", which="minor", length=0)


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, float]], size: float = 8) -> None:
    """Write names right of the ends of their lines, moved apart where they would lie on each other.

    The limits of the axes must be set before.
    """
    if not ends:
        return
    to_share = axes.transLimits + axes.transAxes.inverted() + axes.transAxes
    names = sorted(ends, key=lambda name: ends[name][1])
    at = [float(to_share.transform(axes.transScale.transform(ends[name]))[1]) for name in names]
    height = axes.get_position().height * axes.figure.get_figheight() * 72  # type: ignore[union-attr]
    for name, y in zip(names, _spread(at, 1.3 * size / height), strict=True):
        axes.annotate(
            cut(name, 26),
            ends[name],
            xytext=(1.04, y),
            textcoords="axes fraction",
            va="center",
            fontsize=size,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def _spread(at: Sequence[float], gap: float) -> list[float]:
    """Return ascending heights moved as little as it takes to be ``gap`` apart, within 0 and 1 where there is room."""
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
    """Return a name of at most ``length`` characters, without its middle if it is longer: names differ at the end."""
    if len(name) <= length:
        return name
    return f"{name[: (length - 1) // 2]}…{name[-(length // 2) :]}"


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}"


def _broken(title: str) -> str:
    """Return a title in at most two lines."""
    if len(title) <= _LONGEST:
        return title
    at = title.rfind(" ", 0, _LONGEST)
    first, second = (title[:at], title[at + 1 :]) if at > 0 else (title[:_LONGEST], title[_LONGEST:])
    return f"{first}\n{second if len(second) <= _LONGEST else second[: _LONGEST - 1] + '…'}"


def bare(axes: Axes) -> None:
    """Leave out the lines that say nothing."""
    axes.spines[["top", "right"]].set_visible(False)
