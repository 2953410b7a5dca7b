"""Settings for the whole suite: one thread a process, so that sums come out the same everywhere."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# What cuBLAS and cuDNN need on a GPU to give the same sums twice; read once, at the first product of a process.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton's kernels run program by program; read at its import
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    os.environ.pop("PL_GLOBAL_SEED", None)  # a test that trains by the command leaves it, to seed every process alike
    torch.manual_seed(0)


@pytest.fixture
def bfloat16() -> Iterator[None]:
    """Let LSTMs run in bfloat16 on CPUs for which oneDNN, torch's usual way, cannot do so."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    yield
    torch._C._set_mkldnn_enabled(enabled)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small text of its own."""
    folder = tmp_path_factory.mktemp("text")
    generator = random.Random(0)
    words = [f"w{i}" for i in range(30)]
    for name, lines in (("train", 120), ("valid", 30), ("test", 30)):
        content = "\n".join(" ".join(generator.choices(words, k=9)) for _ in range(lines))
        (folder / f"{name}.txt").write_text(content + "\n", encoding="utf-8")
    return folder
