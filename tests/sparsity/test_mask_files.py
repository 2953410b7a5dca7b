"""Topologies as files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_sparse_rnn.sparsity.mask_files import load_masks, save_masks


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    masks = {
        "a.weight": torch.rand(7, 5) < 0.3,
        "b": (torch.rand(3, 2, 3) < 0.5).float(),
        "shape c": torch.ones(1, 9),
    }
    save_masks(tmp_path / "masks.npz", masks)
    loaded = load_masks(tmp_path / "masks.npz")
    assert loaded.keys() == masks.keys()
    for name, mask in masks.items():
        assert loaded[name].dtype == bool
        assert np.array_equal(loaded[name], mask.bool().numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["masks.npz"]


def test_a_bit_a_position(tmp_path: Path) -> None:
    save_masks(tmp_path / "masks.npz", {"a": torch.rand(1000, 1000) < 0.5})
    assert (tmp_path / "masks.npz").stat().st_size < 1_000_000 / 8 + 1000


def test_files_that_are_not_whole_or_something_else(tmp_path: Path) -> None:
    path = tmp_path / "masks.npz"
    save_masks(path, {"a": torch.rand(50, 50) < 0.5})
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no file of masks, or is cut short"):
            load_masks(path)
    np.savez(path, **{"shape a": np.array([3, 3])})
    with pytest.raises(ValueError, match="is no file of masks"):
        load_masks(path)
    with pytest.raises(FileNotFoundError):
        load_masks(tmp_path / "none.npz")
