"""What all figures of the page have in common: colours for light and dark pages, one size, and contrast."""

import re

import pytest
from matplotlib.colors import to_rgb

from lightning_sparse_rnn.report.distance_figures import distance_map, shade
from lightning_sparse_rnn.report.figure_style import DARK, HALF, as_svg, panel_axes
from lightning_sparse_rnn.runs.picture import STYLES

PAPER = {"light": "#ffffff", "dark": "#14191f"}


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(color)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("style", STYLES)
def test_lines_stand_out_from_light_and_dark_pages(style: dict[str, str]) -> None:
    assert contrast(style["color"], PAPER["light"]) >= 3
    assert contrast(DARK[style["color"]], PAPER["dark"]) >= 3


def test_colours_are_the_pages_own() -> None:
    figure, axes = panel_axes("A title")
    for style in STYLES:
        axes.plot([0, 1], [0, 1], **style)
    svg = as_svg(figure, "Lines")
    assert set(re.findall(r": (#[0-9a-f]{6})", svg)) == set()
    assert {name[2:] for name in re.findall(r"--c\w+", svg)} >= {f"c{style['color'][1:]}" for style in STYLES}
    assert f'style="width: {3.7 * 96:.0f}px"' in svg


def test_numbers_on_every_shade_can_be_read() -> None:
    assert (shade(0.0), shade(-0.1)) == ("#ffffff", "#ffffff")
    assert shade(1.0) == shade(1.2)
    shades = [shade(step / 20) for step in range(21)]
    assert len(set(shades)) == 21
    assert [luminance(each) for each in shades] == sorted(map(luminance, shades), reverse=True)
    assert min(contrast(each, "#101418") for each in shades) >= 7
    svg = distance_map(["a", "b"], [[None, 0.7], [0.7, 0.25]]).svg
    assert {shade(0.7), shade(0.25)} <= set(re.findall(r"fill: (#[0-9a-f]{6})", svg))
    assert f'style="width: {HALF * 96:.0f}px"' in svg
