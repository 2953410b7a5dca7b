"""The picture of masks: which matrix, which blocks, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from lightning_sparse_rnn.runs.mask_picture import block_densities, plot_masks, shown_tensor


def rows(**tensors):
    return [
        {"tensor": tensor, "gate": gate, "total": total}
        for tensor, gates in tensors.items()
        for gate, total in gates.items()
    ]


GATES = {"input": 8, "cell": 8}


@pytest.mark.parametrize(
    ("tensors", "shown"),
    [
        ({"weight_ih_l0": GATES, "weight_hh_l0": GATES, "weight_hh_l1": GATES, "weight_ih_l2": GATES}, "weight_hh_l1"),
        ({"cell": GATES, "other": GATES, "decoder": {"all": 9}}, "other"),
    ],
)
def test_the_last_recurrent_matrix_with_gates_is_shown(tensors, shown):
    assert shown_tensor(rows(**tensors)) == (shown, GATES)


def test_without_gates_nothing_is_shown():
    assert shown_tensor(rows(decoder={"all": 9})) is None
    assert shown_tensor([]) is None


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (4, 7), (50, 50)])
@pytest.mark.parametrize("shape", [(7, 5), (1, 9), (6, 2, 3)])
def test_blocks_have_the_densities_of_their_weights(shape, rows, columns):
    mask = np.random.default_rng(1).random(shape) < 0.4
    blocks = block_densities(mask, rows, columns)
    flat = mask.reshape(len(mask), -1)
    assert blocks.shape == (min(rows, flat.shape[0]), min(columns, flat.shape[1]))
    for row, part in enumerate(_cut(flat, blocks.shape[0], 0)):
        for column, block in enumerate(_cut(part, blocks.shape[1], 1)):
            assert blocks[row, column] == pytest.approx(block.mean())


def _cut(array, pieces, axis):
    size = array.shape[axis]
    return np.split(array, [piece * size // pieces for piece in range(1, pieces)], axis)


def test_masks_share_one_scale_and_gates_are_marked_where_they_end():
    half, none = np.tile([True, False], (8, 2)), np.zeros((8, 4), dtype=bool)
    figure = Figure()
    plot_masks(figure, "weight", {"reset": 8, "new": 24}, [("at the start", half), ("after 3 epochs", none)])
    before, after, scale = figure.axes
    assert before.images[0].get_clim() == after.images[0].get_clim() == (0.0, 1.0)
    assert [line.get_ydata()[0] for line in before.get_lines()] == [2.0]
    assert [label.get_text() for label in before.get_yticklabels()] == ["reset", "new"]
    assert (before.get_title(), after.get_title(), scale.get_ylabel()) == ("at the start", "after 3 epochs", "density")
