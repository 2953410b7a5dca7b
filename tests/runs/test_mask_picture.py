"""Masks as pictures: the densities of cells by hand, which matrix, and which of its topologies."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_runs import make_run
from matplotlib.figure import Figure

from lightning_sparse_rnn.runs.folder import masks_after, masks_at_start
from lightning_sparse_rnn.runs.mask_picture import cell_densities, highest, plot_masks, shown_matrix, view, views
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.sparsity.mask_files import load_masks

MATRIX = "network.rnn.weight_hh_l0"
GATES = {"input": 4, "cell": 4}


def test_densities_of_cells_by_hand() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1]], dtype=bool)
    # Two rows, then three; two columns each.
    assert cell_densities(mask, 2, 2).tolist() == [[3 / 4, 0.0], [2 / 6, 1.0]]
    assert cell_densities(mask).tolist() == mask.astype(float).tolist()


@pytest.mark.parametrize("shape", [(607, 151), (96, 48), (5, 300)])
def test_cells_have_the_densities_of_their_weights_and_hold_each_once(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.33
    cells = cell_densities(mask)
    assert cells.shape == (min(shape[0], 96), min(shape[1], 48))
    for row, part in enumerate(_cut(mask, cells.shape[0], 0)):
        for column, cell in enumerate(_cut(part, cells.shape[1], 1)):
            assert cells[row, column] == pytest.approx(cell.mean())


def _cut(array: np.ndarray, pieces: int, axis: int) -> list[np.ndarray]:
    size = array.shape[axis]
    return np.split(array, [piece * size // pieces for piece in range(1, pieces)], axis)


@pytest.mark.parametrize(
    ("tensors", "shown"),
    [
        ({"weight_ih_l0": GATES, "weight_hh_l0": GATES, "weight_hh_l1": GATES}, "weight_hh_l0"),
        ({"decoder": {"all": 9}, "cell": GATES, "other": GATES}, "cell"),
        ({"decoder": {"all": 9}}, None),
        ({}, None),
    ],
)
def test_the_first_recurrent_matrix_with_gates_is_shown(tensors: dict[str, Any], shown: str | None) -> None:
    rows = [
        {"tensor": tensor, "gate": gate, "total": total}
        for tensor, gates in tensors.items()
        for gate, total in gates.items()
    ]
    assert shown_matrix(rows) == (None if shown is None else (shown, GATES))


def test_a_runs_first_and_last_topology(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    topology = read_run(folder).topology
    found = views(folder, topology)
    assert found is not None
    name, (first, last) = found
    assert (name, first.when, last.when) == (MATRIX, "at the start", "after epoch 3")
    for each, epoch in ((first, 0), (last, 2)):
        mask = load_masks(masks_after(folder, epoch))[MATRIX]
        assert each.cells.tolist() == mask.astype(float).tolist()
        assert each.gates == {"input": mask[:4].mean(), "cell": mask[4:].mean()}
        assert (each.ends, each.shape) == ([4, 8], (8, 4))
    now = {MATRIX: np.ones((8, 4), dtype=bool)}
    found = views(folder, topology, (7, now))
    assert found is not None
    assert [(each.when, each.gates["cell"]) for each in found[1]][1] == ("after epoch 7", 1.0)


def test_what_was_kept_after_an_update_is_not_called_the_first(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    topology = read_run(folder).topology
    by_steps = [{**row, "epoch": 0} for row in topology]
    assert [each.when for each in views(folder, by_steps)[1]] == ["after epoch 1", "after epoch 3"]  # type: ignore[index]
    shutil.copy(masks_after(folder, 1), masks_at_start(folder))
    found = views(folder, by_steps)
    assert found is not None
    assert [each.when for each in found[1]] == ["at the start", "after epoch 3"]
    assert found[1][0].cells.tolist() == load_masks(masks_after(folder, 1))[MATRIX].astype(float).tolist()


def test_a_topology_that_never_changes_is_one_view(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    shutil.copy(masks_after(folder, 0), masks_after(folder, 2))
    found = views(folder, read_run(folder).topology)
    assert found is not None
    assert [each.when for each in found[1]] == ["at the start and after epoch 3"]


def test_what_is_missing_or_damaged_costs_the_picture_and_nothing_else(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    topology = read_run(folder).topology
    assert views(make_run(tmp_path / "b", "dense"), topology) is None
    assert views(folder, []) is None
    other = [{**row, "tensor": str(row["tensor"]).replace("rnn", "gru")} for row in topology]
    assert views(folder, other) is None
    assert views(folder, [{**row, "total": 12} for row in topology]) is None
    masks_after(folder, 0).write_bytes(b"damaged")
    assert views(folder, topology) is None


def test_views_share_one_scale_and_gates_are_marked_where_they_end() -> None:
    half, few = np.tile([True, False], (8, 2)), np.zeros((8, 4), dtype=bool)
    few[7, 0] = True
    shown = [view(half, {"reset": 2, "new": 6}, "at the start"), view(few, {"reset": 2, "new": 6}, "after epoch 3")]
    assert highest(shown) == 1.0
    assert highest([view(few[:6], {"all": 6}, "")]) == 1.0  # nothing is live: a scale nevertheless
    panels = Figure().subplots(1, 2)
    plot_masks(panels, shown, 0.8)
    before, after = panels
    assert before.images[0].get_clim() == after.images[0].get_clim() == (0.0, 0.8)
    assert [line.get_ydata()[0] for line in before.get_lines()] == [2]
    assert [[label.get_text() for label in each.get_yticklabels()] for each in panels] == [
        ["reset 0.50", "new 0.50"], ["0.00", "0.04"],
    ]  # fmt: skip
    assert [each.get_title(loc="left") for each in panels] == ["at the start", "after epoch 3"]


def test_names_of_small_gates_do_not_lie_on_one_another() -> None:
    mask = np.ones((100, 4), dtype=bool)
    (panel,) = Figure().subplots(1, 1, squeeze=False)[0]
    plot_masks([panel], [view(mask, {"a": 2, "b": 2, "c": 96}, "")], 1.0)
    assert list(panel.get_yticks()) == pytest.approx([1.0, 7.5, 52.0])
