"""Packed modules as files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packed_modules import sparse
from torch import nn

from lightning_sparse_rnn.inference import compress, load_packed, save_packed
from lightning_sparse_rnn.inference.compression import held_bytes
from lightning_sparse_rnn.models import LSTM

pytestmark = pytest.mark.usefixtures("_kernel")
NETWORK = {"_target_": "lightning_sparse_rnn.models.LSTM", "vocab_size": 60, "embedding_size": 32, "hidden_size": 32,
           "tied": True}  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    packed = compress(sparse(LSTM(60, 32, 32, tied=True)), smallest=1)
    save_packed(tmp_path / "p", packed, NETWORK)
    return tmp_path / "p", packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_what_was_saved_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    packed = compress(sparse(LSTM(60, 32, 32, tied=True)), dtype, smallest=1)
    save_packed(tmp_path / "p", packed, NETWORK)
    again = load_packed(tmp_path / "p")
    tokens = torch.randint(60, (5, 3))
    assert again(tokens).hidden.equal(packed(tokens).hidden)
    assert again.decoder.packed["weight"] is again.embedding.packed["weight"]
    assert (tmp_path / "p").stat().st_size < held_bytes(packed) + 4096


def test_a_layer_of_two_names(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = self.decoder = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(self.encoder(x))

    module, x = sparse(Both()), torch.randn(3, 16)
    packed = compress(module, smallest=1)
    assert packed.encoder is packed.decoder
    save_packed(tmp_path / "both", packed)
    loaded = load_packed(tmp_path / "both", Both())
    assert loaded.encoder is loaded.decoder
    assert loaded(x).equal(packed(x))


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    module = sparse(nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 4)))
    save_packed(tmp_path / "p", compress(module, smallest=1))
    other = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 4))
    x = torch.randn(3, 20)
    assert torch.allclose(load_packed(tmp_path / "p", other)(x), module(x), atol=1e-5)
    with pytest.raises(ValueError, match="Expected a file that names its network"):
        load_packed(tmp_path / "p")


def test_loading_needs_torch_alone_and_no_kernel(saved: tuple[Path, nn.Module]) -> None:
    path, packed = saved
    code = (
        "import sys, torch; from lightning_sparse_rnn.inference import load_packed\n"
        f"network = load_packed({str(path)!r})\n"
        "found = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not found & {'pytorch_lightning', 'lightning', 'hydra', 'omegaconf', 'torchmetrics', 'matplotlib'}\n"
        "print(type(network.decoder).__name__, *network(torch.arange(4).view(2, 2)).hidden.flatten().tolist())"
    )
    for choice, layer in (("portable", "PackedLinear"), ("none", "Linear")):
        done = subprocess.run(
            [sys.executable, "-c", f"import os; os.environ['LIGHTNING_SPARSE_RNN_KERNEL'] = {choice!r}\n{code}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        name, *numbers = done.stdout.split()
        assert name == layer
        expected = packed(torch.arange(4).view(2, 2)).hidden.flatten()
        assert torch.allclose(torch.tensor([float(number) for number in numbers]), expected, atol=1e-5)


def test_files_that_are_not_whole_or_of_another_kind(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, _ = saved
    content = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="There is no file of packed weights"):
        load_packed(tmp_path / "none")
    for cut in (5, 12, 40, 700, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"cut short or damaged|of another kind"):
            load_packed(path)
    path.write_bytes(b"text" * 100)
    with pytest.raises(ValueError, match="of another kind"):
        load_packed(path)
    path.write_bytes(content.replace(b"LSRNNPK1", b"LSRNNPK2"))
    with pytest.raises(ValueError, match="Expected packed weights of version 1, got version 2"):
        load_packed(path)
    path.write_bytes(content.replace(b'"version": 1', b'"version": 7'))
    with pytest.raises(ValueError, match="Expected packed weights of version 1, got version 7"):
        load_packed(path)


def test_bits_that_do_not_fit_the_values_are_refused(saved: tuple[Path, nn.Module]) -> None:
    path, _ = saved
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[8:16], "little")
    place = json.loads(content[16 : 16 + length])["packed"][0]["masks"]["at"]
    content[16 + length + place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"The packed weights in .* are damaged"):
        load_packed(path)


def test_other_modules_and_networks(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, packed = saved
    with pytest.raises(ValueError, match=r"Expected the packed weights of LSTM, got those of another module in"):
        load_packed(path, LSTM(60, 24, 24))
    save_packed(path, packed, {**NETWORK, "_target_": "os.system"})
    with pytest.raises(ValueError, match=r"Expected one of lightning_sparse_rnn.models.AWDLSTM, .*, got 'os.system'"):
        load_packed(path)
    save_packed(path, packed, {**NETWORK, "speed": 9})
    with pytest.raises(ValueError, match="cannot be built"):
        load_packed(path)
    with pytest.raises(ValueError, match=r"Expected a module with packed weights, got one without.*smallest=1"):
        save_packed(path, nn.Linear(3, 4))
