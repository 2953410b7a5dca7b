"""Sparse weights from a run."""

import json
from pathlib import Path

import pytest
import torch

from lightning_sparse_rnn.commands.export import main
from lightning_sparse_rnn.data import TextDataModule, Vocabulary
from lightning_sparse_rnn.models import LSTM, LanguageModel
from lightning_sparse_rnn.sparsity import SparseTopology
from lightning_sparse_rnn.sparsity.sparse_files import load_sparse


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a checkpoint, and another in it."""
    network = LSTM(500, 40, 40, tied=True)
    SparseTopology(network, 0.67)
    torch.save({"state_dict": network.state_dict(), "global_step": 5}, tmp_path / "best.ckpt")
    other = {name: 2 * weight for name, weight in network.state_dict().items()}
    torch.save({"state_dict": other, "global_step": 6}, tmp_path / "other.ckpt")
    return tmp_path


def test_the_best_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run)])
    path = run / "weights.sparse.pt"
    saved, weights = torch.load(run / "best.ckpt", weights_only=True)["state_dict"], load_sparse(path)
    assert weights.keys() == saved.keys()
    assert all(weights[name].equal(saved[name]) for name in saved)
    dense = sum(tensor.nbytes for name, tensor in saved.items() if name != "decoder.weight")
    size = path.stat().st_size
    assert size <= 0.45 * dense
    said = capsys.readouterr().out
    assert f"{size:,} bytes, {size / dense:.3f} of the {dense:,} bytes" in said
    code = "\n".join(line.strip() for line in said.splitlines()[2:])
    found: dict[str, dict[str, torch.Tensor]] = {}
    exec(code, found)
    assert found["weights"].keys() == saved.keys()


def test_another_checkpoint_to_another_file(run: Path) -> None:
    main([str(run), "--checkpoint", str(run / "other.ckpt"), "--output", str(run / "w")])
    saved = torch.load(run / "other.ckpt", weights_only=True)["state_dict"]
    assert load_sparse(run / "w")["embedding.weight"].equal(saved["embedding.weight"])


def test_mistakes(run: Path) -> None:
    with pytest.raises(SystemExit, match=r"sparse-rnn-export: There is no checkpoint .*none.ckpt"):
        main([str(run), "--checkpoint", str(run / "none.ckpt")])
    (run / "best.ckpt").write_bytes(b"text")
    with pytest.raises(SystemExit, match=r"sparse-rnn-export: The checkpoint .* is cut short or damaged"):
        main([str(run)])
    assert not (run / "weights.sparse.pt").exists()
    with pytest.raises(SystemExit, match="sparse-rnn-export: "):
        main([str(run), "--checkpoint", str(run / "other.ckpt"), "--output", str(run / "best.ckpt" / "w")])
    main([str(run), "--checkpoint", str(run / "other.ckpt"), "--output", str(run / "new" / "w")])
    assert (run / "new" / "w").exists()


def test_what_the_weights_mean_stands_beside_them(text: Path, tmp_path: Path) -> None:
    data = TextDataModule("folder", str(text), cache_dir=str(tmp_path))
    network = {"_target_": "lightning_sparse_rnn.models.LSTM", "embedding_size": 4, "hidden_size": 4}
    model = LanguageModel(network, data.vocab_size)
    saved = {
        "state_dict": model.state_dict(),
        "global_step": 1,
        "hyper_parameters": dict(model.hparams),
        "TextDataModule": data.state_dict(),
    }
    torch.save(saved, tmp_path / "best.ckpt")
    main([str(tmp_path)])
    about = json.loads((tmp_path / "weights.sparse.pt.json").read_text())
    assert about["model"]["network"] == network
    assert Vocabulary.from_state(about["vocabulary"]) == data.vocabulary
    again = LanguageModel(**about["model"])
    again.load_state_dict(load_sparse(tmp_path / "weights.sparse.pt"))
