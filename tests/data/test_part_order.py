import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.data.lengths import SequenceLengths
from lightning_sparse_rnn.data.part_order import PartOrder

orders = st.builds(PartOrder, st.integers(2, 40), st.integers(0, 2**32))


@given(orders, st.integers(0, 200), st.integers(0, 2000))
def test_every_part_is_read_once_and_in_itself_as_it_stands(order: PartOrder, more: int, epoch: int) -> None:
    ids = torch.arange(order.parts + more)
    read = order.read(ids, epoch)
    assert sorted(read.tolist()) == ids.tolist()
    begins = [0] + [k for k in range(1, len(ids)) if int(read[k]) != int(read[k - 1]) + 1]
    sizes = [end - begin for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True)]
    # Parts that happen to follow each other as in the text show as one.
    follow = sum(b == a + 1 for a, b in zip(order.epoch(epoch), order.epoch(epoch)[1:], strict=False))
    assert len(sizes) == order.parts - follow
    assert min(sizes) >= len(ids) // order.parts


def test_by_hand() -> None:
    order = PartOrder(3, seed=1)
    # 8 tokens in parts of 3, 3 and 2.
    parts = [[10, 11, 12], [13, 14, 15], [16, 17]]
    for epoch in range(6):
        expected = [token for number in order.epoch(epoch) for token in parts[number]]
        assert order.read(torch.arange(10, 18), epoch).tolist() == expected


@given(st.integers(30, 200), st.integers(0, 2**32), st.integers(0, 2000))
def test_orders_depend_on_seed_and_epoch_alone(parts: int, seed: int, epoch: int) -> None:
    order = PartOrder(parts, seed)
    assert sorted(order.epoch(epoch)) == list(range(parts))
    assert order.epoch(epoch) == PartOrder(parts, seed).epoch(epoch)
    assert order.epoch(epoch) != order.epoch(epoch + 1)
    assert order.epoch(epoch) != PartOrder(parts, seed + 1).epoch(epoch)


def test_every_part_comes_first_equally_often() -> None:
    first = np.bincount([PartOrder(5, seed=3).epoch(epoch)[0] for epoch in range(1000)], minlength=5)
    assert np.abs(first - 200).max() < 60  # 4.7 standard deviations of a binomial draw


def test_nothing_global_is_consumed_and_lengths_are_drawn_as_without() -> None:
    lengths = SequenceLengths(20, "drawn", seed=4).epoch(2)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    PartOrder(9, seed=4).read(torch.arange(50), 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    again = SequenceLengths(20, "drawn", seed=4).epoch(2)
    assert [next(lengths) for _ in range(9)] == [next(again) for _ in range(9)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": 1}, "`shuffle_parts` to be a whole number of at least 2, got 1"),
        ({"parts": 2.5}, r"`shuffle_parts` to be a whole number of at least 2, got 2\.5"),
        ({"parts": 20, "seed": -1}, "`seed` to be a whole number of at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartOrder(**arguments)
