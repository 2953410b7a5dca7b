"""The picture of a run: what stands on it."""

import numpy as np
from matplotlib.figure import Figure

from lightning_sparse_rnn.runs.mask_picture import view
from lightning_sparse_rnn.runs.picture import draw_run

ROWS = [
    {"epoch": epoch, "train_ppl": 300 - 40 * epoch, "val_ppl": 250 - 10 * epoch, "averaging": 0} for epoch in (0, 1)
]
TOPOLOGY = [
    {"tensor": "weight", "gate": gate, "epoch": epoch, "density": 0.5} for epoch in (0, 1) for gate in ("input", "cell")
]


def _lines(figure: Figure) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.subfigs[0].axes[0].get_lines()}


def test_it_names_the_settings_the_test_score_and_the_unigram_line() -> None:
    figure = draw_run(ROWS, [], about="selfish\nlr 30", results={"test_ppl": 234.56, "unigram_ppl": 400.04})
    assert figure.subfigs[0].get_suptitle() == "selfish\nlr 30"
    assert _lines(figure) == {
        "training": [300, 260],
        "validation": [250, 240],
        "unigram model, test: 400.0": [400.04, 400.04],
        "test: 234.56": [234.56],
    }


def test_epochs_are_whole_numbers_of_one_epoch_as_of_many() -> None:
    for rows in (ROWS[:1], ROWS, [{**ROWS[0], "epoch": epoch} for epoch in range(40)]):
        axes = draw_run(rows, []).subfigs[0].axes[0]
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown
        assert shown == [round(tick) for tick in shown]


def test_a_run_that_goes_on_and_one_without_text_have_less() -> None:
    figure = draw_run(ROWS, [], results={"unigram_ppl": None})
    assert list(_lines(figure)) == ["training", "validation"]
    assert len(figure.subfigs) == 1


def test_gates_and_masks_stand_below() -> None:
    shown = [
        view(np.eye(8, 4, dtype=bool), {"input": 4, "cell": 4}, when) for when in ("at the start", "after epoch 2")
    ]
    figure = draw_run(ROWS, TOPOLOGY, masks=("weight", shown))
    gates, masks = figure.subfigs[1:]
    assert [axes.get_title() for axes in gates.axes] == ["weight"]
    assert masks.get_suptitle() == "Where the live weights of weight are (8 × 4, cells of about 1 × 1 weights)"
    assert [axes.get_title(loc="left") for axes in masks.axes[:2]] == ["at the start", "after epoch 2"]
    assert masks.axes[2].get_ylabel() == "share of live weights in a cell"
