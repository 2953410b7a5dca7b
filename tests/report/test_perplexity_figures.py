"""What the figures of perplexity are drawn from, by hand."""

from pathlib import Path
from typing import Any

import pytest
from made_up_runs import make_run

from lightning_sparse_rnn.report import perplexity_figures
from lightning_sparse_rnn.report.groups import Group, group_runs
from lightning_sparse_rnn.report.perplexity_figures import (
    by_sparsity,
    curve_limits,
    curves,
    first_averaged,
    mean_curve,
    over_sparsity,
)
from lightning_sparse_rnn.runs.reading import read_run


def grouped(folder: Path, *runs: tuple[str, float, dict[str, Any]]) -> list[Group]:
    """Make runs of (method, test perplexity, settings), and return their groups."""
    folders = [
        make_run(folder / str(number), method, 1, value, **settings)
        for number, (method, value, settings) in enumerate(runs)
    ]
    return group_runs([read_run(each) for each in folders])


@pytest.mark.parametrize("setting", ["sparsity", "method__sparsity"])
def test_a_method_stands_at_the_sparsity_it_was_given(tmp_path: Path, setting: str) -> None:
    groups = grouped(tmp_path, *(("selfish", 100 * given, {setting: given}) for given in (0.9, 0.67, 0.8)))
    assert by_sparsity(groups) == {"selfish": [(0.67, 67.0), (0.8, 80.0), (0.9, 90.0)]}


@pytest.mark.parametrize("setting", ["sparsity", "method__weights_of_sparsity"])
def test_a_small_dense_network_stands_where_a_sparse_one_has_as_many_weights(tmp_path: Path, setting: str) -> None:
    groups = grouped(tmp_path, *(("small_dense", 100 * given, {setting: given}) for given in (0.67, 0.9)))
    assert by_sparsity(groups) == {"small_dense": [(0.67, 67.0), (0.9, 90.0)]}


def test_without_a_sparsity_among_the_settings_the_one_of_the_results_counts(tmp_path: Path) -> None:
    groups = grouped(tmp_path, ("selfish", 90.0, {}), ("selfish", 95.0, {"sparsity": 0.8}))
    for group in groups:
        del group.runs[0].settings["method.sparsity"]
    assert by_sparsity(groups) == {"selfish": [(0.5, 90.0), (0.8, 95.0)]}
    for group in groups:
        del group.runs[0].results["sparsity"]  # type: ignore[union-attr]
    assert by_sparsity(groups) == {}


def test_of_several_settings_at_one_sparsity_the_best_counts(tmp_path: Path) -> None:
    groups = grouped(
        tmp_path,
        ("selfish", 90.0, {"data__train_lines": 5}),
        ("selfish", 85.0, {"data__train_lines": 5, "method__prune_rate": 0.5}),
        ("selfish", 99.0, {"data__train_lines": 5, "sparsity": 0.8}),
    )
    assert by_sparsity(groups) == {"selfish": [(0.5, 85.0), (0.8, 99.0)]}


def test_dense_is_a_line_across_whatever_sparsity_others_were_given(tmp_path: Path) -> None:
    groups = grouped(
        tmp_path,
        *(("selfish", 90.0 + given, {"sparsity": given}) for given in (0.5, 0.8)),
        *(("dense", 80.0, {"sparsity": given}) for given in (0.5, 0.8)),
        ("static", 95.0, {}),
    )
    assert list(by_sparsity(groups)) == ["selfish"]
    picture = over_sparsity(groups).svg
    assert ">dense<" in picture.replace("\n", "")
    assert "static" not in picture  # one point is no line


def test_the_first_validation_of_averaged_weights_is_marked(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert run.results is not None
    assert run.results["averaging_began_epoch"] == 1
    assert first_averaged(run.metrics) == (3, 130)  # the one after the validation in which the trigger fired
    assert "averaged weights are first validated after 3 epochs" in curves(Group([run], "selfish"), {}, None).svg


def test_a_run_that_never_averages_has_no_mark(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    for row in run.metrics:
        row["averaging"] = 0
    assert first_averaged(run.metrics) is None
    assert "averaged" not in curves(Group([run], "selfish"), {}, None).svg


def test_one_epoch_is_a_mark_where_it_would_be_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(perplexity_figures, "as_svg", lambda figure, says: figures.append(figure) or "")
    group = Group([read_run(make_run(tmp_path / "run"))], "selfish")
    for rows in (group.runs[0].metrics, group.runs[0].metrics[:1]):
        group.runs[0].metrics = rows
        curves(group, {"selfish": [], "other": mean_curve(group, "val_ppl")}, curve_limits([group]))
    markers = [[line.get_marker() for line in figure.axes[0].lines] for figure in figures]
    assert markers == [["None"] * 3 + ["v"], ["o"] * 3]  # another method, validation, training, the first average
    assert [tick for tick in figures[1].axes[0].get_xticks() if tick != round(tick)] == []
    low, high = figures[1].axes[0].get_ylim()
    assert all(low < value < high for line in figures[1].axes[0].lines for value in line.get_ydata())
