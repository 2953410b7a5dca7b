from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.data.lengths import SequenceLengths


def take(lengths: SequenceLengths, epoch: int, count: int = 1000) -> list[int]:
    return list(islice(lengths.epoch(epoch), count))


def test_fixed() -> None:
    assert take(SequenceLengths(35), 3, 4) == [35] * 4


@given(st.integers(5, 200), st.integers(0, 2**32), st.integers(0, 2000))
def test_drawn_lengths_depend_on_seed_and_epoch_alone(bptt: int, seed: int, epoch: int) -> None:
    lengths = SequenceLengths(bptt, "drawn", seed=seed)
    first = take(lengths, epoch, 50)
    assert first == take(SequenceLengths(bptt, "drawn", seed=seed), epoch, 50)
    assert min(first) >= 5
    assert first != take(lengths, epoch + 1, 50)
    assert first != take(SequenceLengths(bptt, "drawn", seed=seed + 1), epoch, 50)


def test_drawn_lengths_follow_the_two_bases() -> None:
    lengths = np.array(take(SequenceLengths(200, "drawn"), 0, 20_000))
    half = lengths < 150
    assert half.mean() == pytest.approx(0.05, abs=0.006)
    assert lengths[~half].mean() == pytest.approx(199.5, abs=0.2)  # rounded down
    assert lengths[~half].std() == pytest.approx(5, abs=0.1)
    assert lengths[half].mean() == pytest.approx(99.5, abs=0.7)


def test_max_extra_only_cuts() -> None:
    free, cut = SequenceLengths(20, "drawn"), SequenceLengths(20, "drawn", max_extra=3)
    assert max(take(free, 0)) > 23
    assert take(cut, 0) == [min(length, 23) for length in take(free, 0)]


def test_nothing_global_is_consumed() -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    take(SequenceLengths(35, "drawn"), 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bptt": 0}, "`bptt` to be a whole number of at least 1, got 0"),
        ({"bptt": 4, "kind": "drawn"}, "`bptt` of at least 5 with drawn lengths, got 4"),
        ({"bptt": 9, "kind": "random"}, "one of fixed, drawn, got 'random'"),
        ({"bptt": 9, "max_extra": 2}, "no `max_extra` with fixed lengths, got 2"),
        ({"bptt": 9, "kind": "drawn", "max_extra": -1}, "`max_extra` to be a whole number of at least 0, got -1"),
        ({"bptt": 9, "seed": -1}, "`seed` to be a whole number of at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceLengths(**arguments)
