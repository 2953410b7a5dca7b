"""One trained model in a file, of whatever kind the file is."""

import json
from pathlib import Path

import pytest
import torch
from packed_modules import sparse

from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs.exporting import export, export_to
from lightning_sparse_rnn.runs.model_file import is_exported, load_model
from tests.helpers.trained_checkpoints import save_checkpoint

NETWORK = {"_target_": "lightning_sparse_rnn.models.GRU", "embedding_size": 12, "hidden_size": 12}


@pytest.fixture
def checkpoint(text: Path, tmp_path: Path) -> Path:
    data = TextDataModule("folder", str(text), bptt=7, cache_dir=str(tmp_path))
    model = sparse(LanguageModel(NETWORK, data.vocab_size))
    return save_checkpoint(tmp_path / "best.ckpt", model, data)


def test_files_of_every_kind_hold_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "sparse")
    export_to("packed", checkpoint, tmp_path / "packed")
    export_to("dense", checkpoint, tmp_path / "dense")
    first = load_model(checkpoint)
    tokens = torch.randint(len(first.vocabulary or []), (9, 2))
    hidden = first.network(tokens).hidden
    assert first.data["bptt"] == 7
    for name in ("sparse", "packed"):
        file = load_model(tmp_path / name)
        assert file.vocabulary == first.vocabulary
        assert file.data == first.data
        assert torch.allclose(file.network(tokens).hidden, hidden, atol=1e-6)
    assert [is_exported(tmp_path / name) for name in ("sparse", "packed", "dense", "best.ckpt", "none")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(ValueError, match=r"dense is in a format for other libraries. .* --format sparse or packed"):
        load_model(tmp_path / "dense")
    with pytest.raises(FileNotFoundError, match=r"Expected a run's folder, .* there is no .*none"):
        load_model(tmp_path / "none")


@pytest.mark.parametrize("kind", ["sparse", "packed"])
def test_what_stands_beside_a_file_is_made_no_more_than_what_is_in_one(
    kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    export(checkpoint, tmp_path / "m") if kind == "sparse" else export_to(kind, checkpoint, tmp_path / "m")
    beside = tmp_path / "m.json"
    about = json.loads(beside.read_text())
    trap = {"_target_": "torch.save", "obj": 1, "f": str(tmp_path / "trap")}
    beside.write_text(json.dumps({**about, "data": {**about["data"], "root": trap}}))
    with pytest.raises(ValueError, match="_target_"):
        load_model(tmp_path / "m")
    if kind == "sparse":
        beside.write_text(json.dumps({**about, "model": {**about["model"], "network": trap}}))
        with pytest.raises(ValueError, match="none of this package's own"):
            load_model(tmp_path / "m")
    beside.write_text(json.dumps({**about, "vocabulary": {**about["vocabulary"], "tokens": ["a"]}}))
    with pytest.raises(ValueError, match="Expected a vocabulary of"):
        load_model(tmp_path / "m")
    beside.write_text("{}")
    with pytest.raises(ValueError, match=r"m\.json cannot be read: it lacks"):
        load_model(tmp_path / "m")
    beside.write_text("not JSON")
    with pytest.raises(ValueError, match=r"m\.json cannot be read"):
        load_model(tmp_path / "m")
    assert not (tmp_path / "trap").exists()
