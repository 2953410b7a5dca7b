"""Sparse weights from a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_sparse_rnn.commands.export import main
from lightning_sparse_rnn.data import TextDataModule, Vocabulary
from lightning_sparse_rnn.inference.build import kernel
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "int8"], "--dtype is of packed values: expected --format packed beside it, got sparse"),
        (["--dtype", "float32", "--format", "onnx"], "expected --format packed beside it, got onnx"),
        (["--twin", "other"], "--twin is for the model card: expected --card beside it"),
        (["--license", "mit"], "--license is for the model card: expected --card beside it"),
        (["--card", "--checkpoint", "other.ckpt"], "--card has the perplexities of the run's best.ckpt"),
        (["--card"], "Expected a finished run"),
        (["--output", "."], "Expected --output as a file to write, got the folder"),
    ],
)
def test_options_without_effect_are_refused_before_anything_is_written(
    run: Path, options: list[str], message: str
) -> None:
    before = sorted(run.iterdir())
    with pytest.raises(SystemExit, match=message):
        main([str(run), *options])
    assert sorted(run.iterdir()) == before


def test_a_checkpoint_is_not_written_over(run: Path) -> None:
    with pytest.raises(SystemExit, match=r"a file of its own, got .*best\.ckpt: a checkpoint would be lost"):
        main([str(run), "--output", str(run / "best.ckpt")])


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


@pytest.fixture
def model(run: Path) -> LanguageModel:
    """A sparse language model, whose checkpoint stands in the run's folder."""
    network = {"_target_": "lightning_sparse_rnn.models.LSTM", "embedding_size": 24, "hidden_size": 24, "tied": True}
    model = LanguageModel(network, 40).eval()
    SparseTopology(model, 0.67)
    saved = {"state_dict": model.state_dict(), "global_step": 5, "hyper_parameters": dict(model.hparams)}
    torch.save(saved, run / "best.ckpt")
    return model


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-6), ("bfloat16", 0.01), ("int8", 0.02)])
def test_packed(dtype: str, within: float, run: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    if kernel() is None:
        pytest.skip("there is no C++ compiler")
    main([str(run), "--format", "packed", "--dtype", dtype])
    code = "\n".join(line.strip() for line in capsys.readouterr().out.splitlines()[2:])
    found: dict[str, Any] = {}
    exec(code, found)
    tokens = torch.randint(40, (5, 2))
    assert torch.allclose(found["network"](tokens).hidden, model(tokens).hidden, atol=within)


def test_dense(run: Path, model: LanguageModel) -> None:
    main([str(run), "--format", "dense"])
    weights, expected = torch.load(run / "weights.pt", weights_only=True), model.network.state_dict()
    LSTM(40, 24, 24, tied=True).load_state_dict(weights)
    assert all(weights[name].equal(tensor) for name, tensor in expected.items())


def test_safetensors_by_its_own_library(run: Path, model: LanguageModel) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    main([str(run), "--format", "safetensors"])
    weights = safetensors.load_file(run / "weights.safetensors")
    expected = model.network.state_dict()
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(tensor) for name, tensor in expected.items())


@pytest.mark.filterwarnings("ignore")  # of packages that export alone needs
def test_onnx_by_its_own_runtime(run: Path, model: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    main([str(run), "--format", "onnx"])
    assert "torchvision" not in caplog.text
    session = runtime.InferenceSession(run / "network.onnx")
    state = None
    with torch.no_grad():
        parts = [torch.zeros(2, 3, 24).numpy()] * 2
        for _ in range(3):
            tokens = torch.randint(40, (1, 3))
            found, *parts = session.run(None, {"tokens": tokens.numpy(), "state_0": parts[0], "state_1": parts[1]})
            output = model.network(tokens, state)
            state = output.state
            expected = [model.network.log_probs(output.hidden), *state]
            assert all(
                torch.allclose(torch.from_numpy(a), b, atol=1e-5)
                for a, b in zip([found, *parts], expected, strict=True)
            )


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", ["sparse", "packed", "dense", "safetensors", "onnx"])
def test_a_run_that_has_diverged_is_refused_by_every_format(
    kind: str, value: float, run: Path, model: LanguageModel
) -> None:
    saved = torch.load(run / "best.ckpt", weights_only=True)
    saved["state_dict"]["network.decoder.bias"][2] = value
    torch.save(saved, run / "best.ckpt")
    before = sorted(run.iterdir())
    with pytest.raises(SystemExit, match=r"Expected finite weights, got network.decoder.bias with 1 (NaN|infinite)"):
        main([str(run), "--format", kind, "--output", str(run / "new" / "file")])
    assert sorted(run.iterdir()) == before


def test_of_another_module_only_nan_is_refused(run: Path) -> None:
    state = {"mask": torch.tensor([0.0, -torch.inf]), "weight": torch.zeros(2)}
    torch.save({"state_dict": state, "global_step": 5}, run / "best.ckpt")
    main([str(run)])
    assert load_sparse(run / "weights.sparse.pt")["mask"].equal(state["mask"])
    torch.save({"state_dict": {**state, "weight": torch.tensor([torch.nan, 0.0])}, "global_step": 5}, run / "best.ckpt")
    with pytest.raises(SystemExit, match=r"Expected finite weights, got weight with 1 NaN of its 2 values"):
        main([str(run)])


def test_formats_of_networks_need_a_language_model(run: Path) -> None:
    for kind in ("packed", "dense"):
        with pytest.raises(SystemExit, match="Expected a checkpoint of a LanguageModel"):
            main([str(run), "--format", kind, "--checkpoint", str(run / "other.ckpt")])
