"""Masks as pictures: the densities of cells by hand, and which masks are drawn."""

import json
from pathlib import Path

import numpy as np
from made_up_runs import make_run

from lightning_sparse_rnn.runs.mask_picture import cell_densities, first_and_last
from lightning_sparse_rnn.runs.picture import draw_run
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.sparsity.mask_files import load_masks


def test_densities_of_cells_by_hand() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1]], dtype=bool)
    # Two rows, then three; two columns each.
    assert cell_densities(mask, 2).tolist() == [[3 / 4, 0.0], [2 / 6, 1.0]]
    assert cell_densities(mask).tolist() == mask.astype(float).tolist()


def test_cells_hold_every_weight_once() -> None:
    mask = np.random.default_rng(0).random((607, 151)) < 0.33
    rows, columns = (np.diff(np.linspace(0, n, 61).astype(int)) for n in mask.shape)
    assert np.rint(cell_densities(mask, 60) * np.outer(rows, columns)).sum() == mask.sum()


def test_first_and_last_masks_of_the_recurrent_matrix(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    run = read_run(folder)
    pair = first_and_last(folder, run.topology)
    assert pair is not None
    assert (pair.name, dict(pair.gates)) == ("network.rnn.weight_hh_l0", {"input": 4, "cell": 4})
    for mask, epoch in ((pair.first, 0), (pair.last, 2)):
        assert (mask == load_masks(folder / "masks" / f"{epoch:04d}.npz")[pair.name]).all()
    results = json.loads((folder / "results.json").read_text()) | {"seed": 1, "total_weights": 48}
    figure = draw_run(run.metrics, [{**row, "density": 0.5} for row in run.topology], results, {}, pair)
    assert [axes.get_title(loc="left") for axes in figure.subfigs[2].axes[:2]] == ["first topology", "last topology"]
    assert first_and_last(make_run(tmp_path / "b", "dense"), []) is None
    (folder / "masks" / "0000.npz").write_bytes(b"damaged")
    assert first_and_last(folder, run.topology) is None
