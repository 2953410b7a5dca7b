"""Packed weights: bits, values, products and rows, by every set of instructions that this processor has."""

import copy
import functools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_sparse_rnn.inference import build
from lightning_sparse_rnn.inference.build import PATHS, best_path, load_kernel
from lightning_sparse_rnn.inference.operators import KINDS
from lightning_sparse_rnn.inference.packing import Packed, _pack, pack

pytestmark = pytest.mark.usefixtures("_kernel")
DTYPES = list(KINDS)
#: A last group that is not full, columns that are no multiple of four, fewer rows than a group, and more
#: rows and columns than are expanded at once.
SHAPES = [(37, 101), (64, 48), (5, 7), (16, 1), (1, 300), (300, 261)]
#: Those around the widths of tiles, and around what is done at once.
VECTORS = [1, 2, 3, 4, 5, 6, 7, 12, 13, 20, 24, 25, 28, 29, 61, 250, 512, 513]


def weight(rows: int, columns: int, density: float = 0.33) -> Tensor:
    return torch.randn(rows, columns) * (torch.rand(rows, columns) < density)


def runnable() -> list[str]:
    best = best_path()
    x86 = ["avx2", "avx512", "avx512_vbmi2"]
    return ["portable", *(x86[: x86.index(best) + 1] if best in x86 else ["neon"] if best == "neon" else [])]


def test_bits_and_values_by_hand() -> None:
    dense = torch.zeros(17, 3)
    dense[0, 0], dense[3, 0], dense[1, 2], dense[16, 1] = 1.0, 2.0, 3.0, 4.0
    packed = pack(dense)
    assert packed.masks.tolist() == [[0b1001, 0, 0b10], [0, 1, 0]]
    assert packed.values.tolist() == [1.0, 2.0, 3.0, 4.0, *[0.0] * 64]
    assert packed.starts.tolist() == [0, 3]
    assert packed.density == 4 / 51


@pytest.mark.parametrize("density", [0.0, 0.05, 0.33, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_and_made_dense_again_nothing_changes(shape: tuple[int, int], density: float) -> None:
    dense = weight(*shape, density)
    assert pack(dense).dense().equal(dense)


def test_with_and_without_a_kernel_the_same_is_packed() -> None:
    dense = weight(37, 101)
    masks, values = _pack(dense)  # what is done where there is none
    packed = pack(dense)
    assert masks.equal(packed.masks)
    assert values.equal(packed.values[:-64])


def test_rounded_values() -> None:
    dense = weight(37, 101)
    assert pack(dense, torch.bfloat16).dense().equal(dense.bfloat16().float())
    scale = dense.abs().amax(1, keepdim=True) / 127
    assert torch.allclose(pack(dense, torch.int8).dense(), (dense / scale).round() * scale)


def test_a_row_of_zeros_in_int8_stays_zero() -> None:
    dense = weight(20, 30)
    dense[7] = 0
    assert pack(dense, torch.int8).dense()[7].eq(0).all()


@pytest.mark.parametrize("units", [1, 100, 190])
def test_a_row_of_the_smallest_numbers_in_int8_keeps_its_signs(units: int) -> None:
    row = torch.tensor([[units, -units, 0.0]]).mul_(2.0**-149)
    assert (pack(row, torch.int8).dense() - row).abs().max() <= torch.finfo().tiny / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_weight_that_is_not_finite_is_refused(value: float, dtype: torch.dtype) -> None:
    dense = weight(20, 30)
    dense[3, 4] = value
    found = "1 NaN" if value != value else "1 infinite"
    with pytest.raises(ValueError, match=f"Expected finite weights, got a weight with {found} of its 600 values"):
        pack(dense, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", runnable())
def test_every_path_multiplies_as_the_portable_one(path: str, dtype: torch.dtype) -> None:
    for rows, columns in SHAPES:
        packed, bias = pack(weight(rows, columns), dtype), torch.randn(rows)
        for vectors in VECTORS:
            x = torch.randn(vectors, columns)
            products = [multiplied(name, packed, x, bias) for name in (path, "portable")]
            assert torch.allclose(*products, atol=1e-4, rtol=1e-5)
            exact = x.double() @ packed.dense().double().t() + bias
            assert torch.allclose(products[0].double(), exact, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("path", runnable())
def test_every_path_steps_as_the_portable_one(path: str, mode: int) -> None:
    steps, vectors, size, gates = 4, 3, 21, (4, 3, 1, 1)[mode]
    packed, bias = pack(weight(gates * size, size)), torch.randn(gates * size)
    inputs, h, c = 8 * torch.randn(steps, vectors, gates * size), torch.randn(vectors, size), torch.randn(vectors, size)
    results = []
    for name in (path, "portable"):
        outputs, cell = torch.empty(steps, vectors, size), c.clone()
        load_kernel(name).recurrence(
            *(part.data_ptr() for part in (inputs, h, cell, *packed._parts[:3])), None, bias.data_ptr(),
            outputs.data_ptr(), mode, 0, 0, steps, vectors, size, 1,
        )  # fmt: skip
        results.append(torch.cat([outputs, cell.unsqueeze(0)]))
    assert torch.allclose(*results, atol=2e-6)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("path", runnable())
def test_every_path_steps_by_torchs_functions_at_the_ends_too(path: str, mode: int) -> None:
    vectors, size, gates = 100, 21, (4, 3, 1, 1)[mode]
    ends = torch.tensor([0.0, 1e-20, 10, 20, 60, 88, 200, torch.inf, torch.nan]).repeat(2)
    ends[:9].neg_()
    inputs = 4 * torch.randn(vectors, gates * size)
    inputs = torch.where(torch.rand(inputs.shape) < 0.5, inputs, ends[torch.randint(len(ends), inputs.shape)])
    h, c = torch.randn(vectors, size), torch.randn(vectors, size)
    outputs, cell = torch.empty(vectors, size), c.clone()
    packed = pack(torch.zeros(gates * size, size))
    load_kernel(path).recurrence(
        inputs.data_ptr(), h.data_ptr(), None if mode else cell.data_ptr(), *addresses(packed), None,
        outputs.data_ptr(), mode, 0, 0, 1, vectors, size, 1,
    )  # fmt: skip
    first, *others = inputs.double().chunk(gates, 1)
    if mode == 0:
        after = others[0].sigmoid() * c + first.sigmoid() * others[1].tanh()
        assert torch.allclose(cell.double(), after, rtol=1e-6, atol=5e-7, equal_nan=True)
        expected = others[2].sigmoid() * after.tanh()
    elif mode == 1:
        z, new = others[0].sigmoid(), (others[1] + 0 * first.sigmoid()).tanh()
        expected = new + z * (h - new)
    else:
        expected = first.relu() if mode == 3 else first.tanh()
    assert torch.allclose(outputs.double(), expected, rtol=1e-6, atol=5e-7, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", [0, 2, 3])
@pytest.mark.parametrize("path", runnable())
def test_every_path_steps_from_its_input_as_from_the_inputs_product(path: str, mode: int, dtype: torch.dtype) -> None:
    steps, size, gates = 3, 21, (4, 3, 1, 1)[mode]
    rows, hidden = gates * size, pack(weight(gates * size, size), dtype)
    for columns, vectors in ((16, 25), (261, 61), (37, 600)):  # more columns than a strip has, more vectors than a part
        own = pack(weight(rows, columns), dtype)
        x, bias = torch.randn(steps, vectors, columns), torch.randn(rows)
        h, c = torch.randn(vectors, size), torch.randn(vectors, size)
        inputs = x @ own.dense().t() + bias
        for reverse in (False, True):
            expected, expected_cell = hidden.recurrence(inputs, h, None if mode else c, None, mode, reverse)
            outputs, cell = torch.full((steps, vectors, size), torch.nan), c.clone()
            for threads in (1, 2):
                cell.copy_(c)
                load_kernel(path).sequence(
                    x.data_ptr(), h.data_ptr(), None if mode else cell.data_ptr(), *addresses(own), *addresses(hidden),
                    bias.data_ptr(), outputs.data_ptr(), mode, reverse, KINDS[dtype],
                    steps, vectors, columns, size, threads,
                )  # fmt: skip
                # Without a bound, as of ReLU, values grow to hundreds, and small ones are differences of such.
                nothing = max(1e-5, 3e-6 * float(expected.abs().max()))
                assert torch.allclose(outputs, expected, atol=nothing, rtol=1e-5)
                assert mode or torch.allclose(cell, expected_cell, atol=1e-5, rtol=1e-5)


def addresses(packed: Packed) -> list[int | None]:
    return [None if part is None else part.data_ptr() for part in packed._parts]


def multiplied(path: str, packed: Packed, x: Tensor, bias: Tensor, threads: int = 1) -> Tensor:
    y = torch.full((len(x), packed.shape[0]), torch.nan)
    load_kernel(path).linear(
        x.data_ptr(), *addresses(packed), bias.data_ptr(), y.data_ptr(),
        KINDS[packed.values.dtype], len(x), *packed.shape, threads,
    )  # fmt: skip
    return y


@pytest.mark.parametrize("path", runnable())
def test_several_threads_give_the_bits_of_one(path: str) -> None:
    for rows in (17, 300, 600):  # fewer groups than threads, and a last block that is not full
        packed, bias = pack(weight(rows, 261)), torch.randn(rows)
        for vectors in (1, 24, 61, 1025):
            x = torch.randn(vectors, 261)
            one, *others = (multiplied(path, packed, x, bias, threads) for threads in (1, 2, 3))
            assert all(other.equal(one) for other in others)


def test_two_threads_give_the_bits_of_one() -> None:
    packed, threads = pack(weight(800, 900)), torch.get_num_threads()
    for vectors in (1, 30):
        x = torch.randn(vectors, 900)
        one = packed.linear(x)
        torch.set_num_threads(2)
        try:
            assert packed.linear(x).equal(one)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("vectors", [12, 100, 256])
def test_products_by_csr_are_the_same(vectors: int) -> None:
    dense, bias = weight(300, 200, 0.05), torch.randn(300)
    packed, x = pack(dense), torch.randn(vectors, 200)
    assert torch.allclose(packed.linear(x, bias), torch.nn.functional.linear(x, dense, bias), atol=1e-4)
    values = int(torch.count_nonzero(dense))
    assert packed.csr_bytes == 8 * values + 4 * 301
    assert packed.nbytes == pack(dense).nbytes + packed.csr_bytes


def test_inputs_that_are_not_finite_act_as_in_a_dense_product() -> None:
    dense = weight(40, 30)
    for vectors in (2, 30):
        x = torch.randn(vectors, 30)
        x[0, 5], x[1, 9] = -torch.inf, torch.nan
        assert torch.allclose(pack(dense).linear(x), x @ dense.t(), atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows(dtype: torch.dtype) -> None:
    packed = pack(weight(37, 101), dtype)
    indices = torch.tensor([[0, 36, 16], [5, 5, 15]])
    assert packed.rows(indices).equal(packed.dense()[indices])
    assert packed.rows(indices.int()).equal(packed.dense()[indices])
    for wrong in (-1, 37):
        with pytest.raises(IndexError, match="Expected indices from 0 to 36"):
            packed.rows(torch.tensor([wrong]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_some_rows_make_their_part_of_a_product(dtype: torch.dtype) -> None:
    packed, bias, x = pack(weight(77, 101), dtype), torch.randn(77), torch.randn(30, 101)
    whole, rows = packed.linear(x, bias), packed.some_rows()
    for part in (slice(0, 77), slice(0, 16), slice(16, 48), slice(64, 99), slice(32, 32)):
        assert torch.allclose(rows[part].linear(x, bias[part]), whole[:, part], atol=1e-5)
        assert len(rows[part]) == len(bias[part])
    for wrong in (slice(5, 20), slice(0, 20, 2)):
        with pytest.raises(IndexError, match="Expected rows from a multiple of 16 on"):
            rows[wrong]


def test_weights_that_were_changed_are_refused() -> None:
    packed = pack(weight(37, 101))
    copied = copy.deepcopy(packed)
    copied.linear(torch.randn(1, 101))
    packed.masks[0, 0] = 0
    with pytest.raises(RuntimeError, match=r"changed since.*call `compress` again"):
        packed.linear(torch.randn(1, 101))


def test_parts_that_do_not_belong_together_are_refused() -> None:
    packed = pack(weight(37, 101))
    with pytest.raises(ValueError, match="packed values"):
        Packed((37, 101), packed.masks, packed.values[:-1])
    with pytest.raises(ValueError, match="masks of 3 groups of 100 columns"):
        Packed((37, 100), packed.masks, packed.values)
    with pytest.raises(ValueError, match="a scale for each of 37 rows"):
        Packed((37, 101), packed.masks, packed.values.to(torch.int8))


def test_bytes() -> None:
    dense = torch.zeros(1600, 1000)
    dense[:, ::4] = 1.0
    for dtype, share in zip(DTYPES, (0.25 + 1 / 32, 0.25 / 2 + 1 / 32, 0.25 / 4 + 1 / 32), strict=True):
        assert pack(dense, dtype).nbytes / dense.nbytes == pytest.approx(share, abs=0.002)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CXX": "no-such-compiler"}, "UserWarning: Packed weights are made dense"),
        (
            {"LIGHTNING_SPARSE_RNN_KERNEL": "avx1024"},
            "to be one of avx512_vbmi2, avx512, avx2, neon, portable or none, got 'avx1024'",
        ),
    ],
)
def test_without_a_kernel_one_line_says_so(environment: dict[str, str], said: str, tmp_path: Path) -> None:
    code = (
        "import torch; from torch import nn; from lightning_sparse_rnn.inference import compress\n"
        "layer = nn.Linear(600, 900); layer.weight.data[:, ::2] = 0; dense = compress(layer); compress(layer)\n"
        "x = torch.rand(2, 600); print(type(dense) is nn.Linear, dense(x).equal(layer(x)))"
    )
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "default",
        "LIGHTNING_SPARSE_RNN_CACHE": str(tmp_path),
        **environment,
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.count(said) == 1
    assert ("True True" in done.stdout) == (done.returncode == 0)


def test_a_build_that_fails_is_tried_once_where_warnings_are_errors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def compiler() -> list[str]:
        tried.append("here")
        raise RuntimeError("There is no C++ compiler.")

    monkeypatch.setattr(build, "_compiler", compiler)
    monkeypatch.setattr(build, "_loaded", functools.cache(build._loaded.__wrapped__))
    monkeypatch.delenv("LIGHTNING_SPARSE_RNN_KERNEL", raising=False)
    kernel = functools.cache(build.kernel.__wrapped__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(UserWarning, match=r"made dense, .* There is no C\+\+ compiler\."):
                kernel()
    with pytest.warns(UserWarning, match="made dense"):
        assert kernel() is None
    assert tried == ["here"]


def test_a_library_that_cannot_be_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packed.so").write_bytes(b"no library")
    monkeypatch.setattr(build, "_built", lambda path: tmp_path / "packed.so")
    monkeypatch.setattr(build, "_loaded", functools.cache(build._loaded.__wrapped__))
    with pytest.raises(RuntimeError, match=r"packed\.so"):
        build.load_kernel("portable")


def test_all_paths_are_tested_somewhere() -> None:
    assert set(runnable()) <= set(PATHS)
    assert np.little_endian
