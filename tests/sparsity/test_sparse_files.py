"""Files of sparse weights."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_sparse_rnn.models import LSTM
from lightning_sparse_rnn.sparsity import SparseTopology
from lightning_sparse_rnn.sparsity.numerics.bits import pack_bits
from lightning_sparse_rnn.sparsity.sparse_files import load_sparse, save_sparse

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OTHERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64]


def same_bits(one: Tensor, two: Tensor) -> bool:
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    return one.contiguous().reshape(-1).view(torch.uint8).equal(two.contiguous().reshape(-1).view(torch.uint8))


def positive_zeros(tensor: Tensor) -> Tensor:
    return tensor.masked_fill(tensor == 0, 0) if tensor.is_floating_point() else tensor


def random_bits(dtype: torch.dtype, shape: list[int], density: float, seed: int) -> Tensor:
    """Any bit patterns at all, NaN and -0.0 among them, and zeros."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel()
    live = torch.rand(count, generator=generator) < density
    if dtype == torch.bool:
        return live.view(shape)
    size = torch.empty((), dtype=dtype).element_size()
    bits = torch.randint(256, (count, size), generator=generator, dtype=torch.uint8).mul_(live[:, None])
    return bits.view(-1).view(dtype).view(shape) if count else torch.empty(shape, dtype=dtype)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    dtype=st.sampled_from(FLOATS + OTHERS),
    shape=st.lists(st.integers(0, 9), max_size=3),
    density=st.sampled_from([0.0, 0.1, 0.33, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_saved_is_loaded_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, shape: list[int], density: float, seed: int
) -> None:
    saved = {"a.weight": random_bits(dtype, shape, density, seed), "b": random_bits(dtype, shape, density, seed + 1)}
    save_sparse(tmp_path / "w", saved)
    loaded = load_sparse(tmp_path / "w")
    assert list(loaded) == list(saved)
    assert all(same_bits(positive_zeros(loaded[name]), positive_zeros(tensor)) for name, tensor in saved.items())
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_minus_zero_comes_back_as_zero_and_nan_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.zeros(100, dtype=dtype)
    weight[1:6] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-40, 0.5], dtype=dtype)
    weight[7] = -weight[1]
    expected = weight.clone()
    weight[0], weight[50:] = -0.0, -0.0
    save_sparse(tmp_path / "w", {"a": weight})
    assert same_bits(load_sparse(tmp_path / "w")["a"], expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_signs_of_zeros_in_an_older_file_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.tensor([0.0, -0.0, 1.5, 0.0, -0.0, -2.0, *[0.0] * 8, -0.0], dtype=dtype)
    save_sparse(tmp_path / "w", {"a": weight})
    saved = torch.load(tmp_path / "w", weights_only=True)
    assert "negative" not in saved["tensors"][0]
    saved["tensors"][0]["negative"] = pack_bits(torch.tensor([False, True, False, True, *[False] * 8, True]))
    torch.save(saved, tmp_path / "w")
    assert same_bits(load_sparse(tmp_path / "w")["a"], weight)


def test_size_at_the_papers_sparsity(tmp_path: Path) -> None:
    network = LSTM(2000, 100, 100)
    SparseTopology(network, 0.67)
    weights = network.state_dict()
    save_sparse(tmp_path / "w", weights)
    assert (tmp_path / "w").stat().st_size < 0.45 * sum(tensor.nbytes for tensor in weights.values())


def test_what_would_not_get_smaller_is_dense(tmp_path: Path) -> None:
    weights = {"dense": torch.randn(40, 40), "bits": torch.ones(8, dtype=torch.bool), "sparse": torch.eye(40)}
    save_sparse(tmp_path / "w", weights)
    entries = {entry["names"][0]: entry for entry in torch.load(tmp_path / "w", weights_only=True)["tensors"]}
    assert {name: "dense" in entry for name, entry in entries.items()} == {"dense": True, "bits": True, "sparse": False}
    assert entries["sparse"]["values"].shape == (40,)


def test_tied_weights_are_written_once_and_still_tied(tmp_path: Path) -> None:
    weight, part = torch.randn(50, 20), torch.randn(2, 6)
    save_sparse(tmp_path / "w", {"a": weight, "b": part[0], "c": weight, "d": part[1], "e": weight.t()})
    loaded = load_sparse(tmp_path / "w")
    assert loaded["a"] is loaded["c"]
    assert loaded["e"].equal(weight.t())
    assert loaded["b"].equal(part[0])
    assert loaded["d"].equal(part[1])
    network = LSTM(30, 20, 20, tied=True)
    SparseTopology(network, 0.8)
    save_sparse(tmp_path / "w", network.state_dict())
    again = LSTM(30, 20, 20, tied=True)
    again.load_state_dict(load_sparse(tmp_path / "w"))
    for name, value in again.state_dict().items():
        assert same_bits(positive_zeros(value), positive_zeros(network.state_dict()[name]))


def test_a_part_of_a_large_tensor_is_a_small_file(tmp_path: Path) -> None:
    save_sparse(tmp_path / "w", {"a": torch.randn(100_000)[:10]})
    assert (tmp_path / "w").stat().st_size < 5_000


def test_parameters_and_gradients_leave_no_trace(tmp_path: Path) -> None:
    save_sparse(tmp_path / "w", {"a": torch.nn.Parameter(torch.eye(9))})
    loaded = load_sparse(tmp_path / "w")["a"]
    assert type(loaded) is Tensor
    assert not loaded.requires_grad


def test_only_plain_tensors(tmp_path: Path) -> None:
    for value, kind in ((3, "int"), (torch.eye(3).to_sparse(), "sparse_coo")):
        with pytest.raises(TypeError, match=rf"Expected plain tensors by name, got .*{kind}.* under 'a'"):
            save_sparse(tmp_path / "w", {"a": value})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


class TestFilesThatAreNone:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no file of sparse weights"):
            load_sparse(tmp_path / "none")

    def test_cut_short_or_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "w"
        save_sparse(path, {"a": torch.eye(60), "b": torch.randn(50, 50)})
        whole = path.read_bytes()
        middle = bytearray(whole)
        middle[len(whole) // 2] ^= 1
        for content in (whole[: len(whole) // 2], whole[:-30], bytes(middle), b"", b"text"):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="cut short or damaged"):
                load_sparse(path)

    def test_of_another_kind(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}, "global_step": 3}, tmp_path / "w")
        with pytest.raises(ValueError, match=r"that `save_sparse` wrote, got .*, which holds global_step, state_dict"):
            load_sparse(tmp_path / "w")
        torch.save(torch.eye(2), tmp_path / "w")
        with pytest.raises(ValueError, match="which holds a Tensor"):
            load_sparse(tmp_path / "w")

    def test_of_a_later_version(self, tmp_path: Path) -> None:
        torch.save({"format": "lightning_sparse_rnn.sparse_weights", "version": 2}, tmp_path / "w")
        with pytest.raises(ValueError, match="version 1, got version 2"):
            load_sparse(tmp_path / "w")

    @pytest.mark.parametrize(
        "change",
        [
            {"values": torch.ones(7)},
            {"live": torch.zeros(3, dtype=torch.uint8)},
            {"live": [1, 2]},
            {"shape": ["x"]},
            {"shape": [-8, -8]},
            {"names": [3]},
            {"negative": torch.zeros(2, dtype=torch.uint8)},
        ],
    )
    def test_that_contradict_themselves(self, tmp_path: Path, change: dict[str, object]) -> None:
        save_sparse(tmp_path / "w", {"a": torch.eye(8)})
        saved = torch.load(tmp_path / "w", weights_only=True)
        saved["tensors"][0] |= change
        torch.save(saved, tmp_path / "w")
        with pytest.raises(ValueError, match="are damaged"):
            load_sparse(tmp_path / "w")
