"""The files of a run's folder."""

from pathlib import Path

import pytest

from lightning_sparse_rnn.runs import folder
from lightning_sparse_rnn.runs.folder import from_here, kept_masks, masks_after

PACKAGE = Path(__file__).parents[2] / "lightning_sparse_rnn"


def test_kept_masks_are_found_in_order_with_the_epochs_trained(tmp_path: Path) -> None:
    assert kept_masks(tmp_path) == []
    for epoch in (11, 0, 2):
        path = masks_after(tmp_path, epoch)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "masks" / "other.npz").touch()
    assert [(epochs, path.name) for epochs, path in kept_masks(tmp_path)] == [
        (1, "0000.npz"),
        (3, "0002.npz"),
        (12, "0011.npz"),
    ]


def test_a_folder_is_named_from_here_where_it_is_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert from_here(tmp_path / "here" / "runs" / "default") == Path("runs/default")
    for elsewhere in (tmp_path / "here", tmp_path / "there", Path("runs")):
        assert from_here(elsewhere) == elsewhere


def test_every_name_stands_once_in_code() -> None:
    names = [getattr(folder, name) for name in folder.__all__ if name.isupper()]
    for path in PACKAGE.rglob("*.py"):
        if path.name == "folder.py":
            continue
        source = path.read_text(encoding="utf-8")
        for name in names:
            assert f'/ "{name}"' not in source, f"{name} in {path}"
