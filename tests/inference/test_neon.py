"""The kernel for ARM's NEON instructions, compiled and emulated where there is what that takes."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_sparse_rnn.inference.build import PATHS
from lightning_sparse_rnn.inference.operators import KINDS
from lightning_sparse_rnn.inference.packing import pack

pytestmark = pytest.mark.usefixtures("_kernel")
_SOURCES = Path(__file__).parents[2] / "lightning_sparse_rnn" / "inference" / "kernel"
_ROWS, _COLUMNS = 37, 261
# Reads the parts of a packed weight and multiplies it with vectors, as `packed_linear` is called here.
_PROGRAM = r"""
#include "packed.cpp"
#include <cstdio>
#include <string>
#include <vector>
template <class T> std::vector<T> read(const std::string& name) {
  std::vector<T> all;
  FILE* file = std::fopen(name.c_str(), "rb");
  for (T one; std::fread(&one, sizeof one, 1, file) == 1;) all.push_back(one);
  std::fclose(file);
  return all;
}
int main(int, char** given) {
  const std::string folder = given[1];
  const int kind = std::stoi(given[2]), rows = std::stoi(given[3]), columns = std::stoi(given[4]);
  const auto x = read<float>(folder + "/x"), bias = read<float>(folder + "/bias");
  const auto scales = read<float>(folder + "/scales");
  const auto masks = read<uint16_t>(folder + "/masks");
  const auto values = read<char>(folder + "/values");
  const auto starts = read<int64_t>(folder + "/starts");
  const int64_t vectors = x.size() / columns;
  std::vector<float> y(vectors * rows);
  packed_linear(x.data(), masks.data(), values.data(), starts.data(), scales.empty() ? nullptr : scales.data(),
                bias.data(), y.data(), kind, vectors, rows, columns, 1);
  std::fwrite(y.data(), sizeof(float), y.size(), stdout);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip(
            "there is no aarch64-linux-gnu-g++ or no qemu-aarch64; on an ARM machine test_packing.py tests NEON"
        )
    folder = tmp_path_factory.mktemp("neon")
    (folder / "program.cpp").write_text(_PROGRAM)
    command = [compiler, "-O2", "-std=c++17", "-w", "-static", *PATHS["neon"], f"-I{_SOURCES}"]
    subprocess.run([*command, str(folder / "program.cpp"), "-o", str(folder / "program")], check=True)
    return [emulator, str(folder / "program")]


@pytest.mark.parametrize("vectors", [1, 4, 61])
@pytest.mark.parametrize("dtype", list(KINDS))
def test_products_by_neon(program: list[str], dtype: torch.dtype, vectors: int, tmp_path: Path) -> None:
    weight = torch.randn(_ROWS, _COLUMNS) * (torch.rand(_ROWS, _COLUMNS) < 0.33)
    packed, x, bias = pack(weight, dtype), torch.randn(vectors, _COLUMNS), torch.randn(_ROWS)
    parts = {"x": x, "bias": bias, "masks": packed.masks, "values": packed.values, "starts": packed.starts}
    scales = torch.empty(0) if packed.scales is None else packed.scales
    for name, part in {**parts, "scales": scales}.items():
        (tmp_path / name).write_bytes(part.view(torch.uint8).numpy().tobytes())
    arguments = [str(tmp_path), str(KINDS[dtype]), str(_ROWS), str(_COLUMNS)]
    made = subprocess.run([*program, *arguments], capture_output=True, check=True).stdout
    y = torch.from_numpy(np.frombuffer(made, dtype=np.float32).reshape(vectors, _ROWS).copy())
    assert torch.allclose(y, x @ packed.dense().t() + bias, atol=1e-4)
