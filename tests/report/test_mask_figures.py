"""Pictures of masks: one for each method, on one scale."""

from pathlib import Path

import numpy as np
import torch
from made_up_runs import make_run

from lightning_sparse_rnn.report.groups import Group
from lightning_sparse_rnn.report.mask_figures import mask_figures, views_of
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.sparsity.mask_files import load_masks, save_masks

MATRIX = "network.rnn.weight_hh_l0"


def test_each_group_shows_its_first_run_that_has_masks(tmp_path: Path) -> None:
    without, with_masks = make_run(tmp_path / "a1"), make_run(tmp_path / "a2", seed=2)
    (without / "masks" / "0000.npz").write_bytes(b"damaged")
    found = views_of(Group([read_run(without), read_run(with_masks)], "a"))
    assert found is not None
    assert (found.group, found.matrix) == ("a", "rnn.weight_hh_l0")
    mask = load_masks(with_masks / "masks" / "0002.npz")[MATRIX]
    assert found.shown[1].gates == {"input": mask[:4].mean(), "cell": mask[4:].mean()}
    assert views_of(Group([read_run(make_run(tmp_path / "dense", "dense"))], "dense")) is None


def test_the_scale_comes_first_and_pictures_say_each_gates_share(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    half = torch.zeros(8, 4)
    half[:4, :2] = 1
    for epoch, mask in ((0, half), (2, 1 - half)):
        save_masks(folder / "masks" / f"{epoch:04d}.npz", {MATRIX: mask})
    found = views_of(Group([read_run(folder)], "a"))
    assert found is not None
    scale, picture = (drawing.svg for drawing in mask_figures([found]))
    assert "shares of live weights from 0 to 1.00" in scale
    assert "at the start: input 0.50, cell 0.00; after epoch 3: input 0.50, cell 1.00" in picture
    assert picture.count("data:image/png;base64,") == 2
    assert np.array_equal(found.shown[0].cells, half.numpy())
