"""The picture of a run: what stands on it."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from lightning_sparse_rnn.runs.picture import draw_run

ROWS = [
    {"epoch": epoch, "train_ppl": 300 - 40 * epoch, "val_ppl": 250 - 10 * epoch, "averaging": 0} for epoch in (0, 1)
]


def lines_of(figure):
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.subfigs[0].axes[0].get_lines()}


def test_it_names_the_run_the_test_score_and_the_unigram_line() -> None:
    figure = draw_run(ROWS, [], about="selfish, seed 3", unigram=400.04, test=234.56)
    assert figure.get_suptitle() == "selfish, seed 3"
    assert lines_of(figure) == {
        "training": [300, 260],
        "validation": [250, 240],
        "test of an add-one unigram model: 400.0": [400.04, 400.04],
        "test: 234.56": [234.56],
    }


def test_a_run_that_goes_on_and_one_without_text_have_less() -> None:
    assert list(lines_of(draw_run(ROWS, []))) == ["training", "validation"]
    assert list(lines_of(draw_run(ROWS, [], test=234.56))) == ["training", "validation", "test: 234.56"]


def test_the_panel_of_one_tensor_takes_the_whole_width() -> None:
    topology = [
        {"tensor": "weight_hh", "gate": gate, "epoch": epoch, "density": 0.3, "total": 4}
        for gate in ("reset", "new")
        for epoch in (0, 1)
    ]
    figure = draw_run(ROWS, topology)
    assert len(figure.subfigs[1].axes) == 1
