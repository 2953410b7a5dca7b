"""Every pruning rule by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_positions import chosen, positions

from lightning_sparse_rnn.sparsity.rules.pruning import PRUNING


def test_signed_magnitude_takes_half_from_either_side_of_zero() -> None:
    live = positions([0.5, -0.1, 0.2, -0.3, 0.1, -0.2])
    assert chosen(PRUNING["signed_magnitude"](live, 4)) == [1, 2, 4, 5]
    assert chosen(PRUNING["signed_magnitude"](live, 3)) == [1, 2, 4]  # the positive side gives one more


@pytest.mark.parametrize(
    ("weights", "count", "gone"),
    [
        ([0.4, 0.3, 0.2, -0.1], 3, [1, 2, 3]),  # the negative side has one to give
        ([-0.4, -0.3, -0.2, 0.1], 3, [1, 2, 3]),
        ([0.3, 0.2, 0.1], 2, [1, 2]),  # there is no negative side
        ([-0.3, 0.0, 0.1, -0.0], 2, [0, 1]),  # zeros, of whatever sign, are the smallest of the positive side
        ([0.3, -0.2], 0, []),
    ],
)
def test_signed_magnitude_where_one_side_is_short(weights: list[float], count: int, gone: list[int]) -> None:
    assert chosen(PRUNING["signed_magnitude"](positions(weights), count)) == gone


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]) | st.floats(-1, 1, width=32), max_size=30), st.data())
def test_signed_magnitude_takes_exactly_what_it_is_asked_for(weights: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(weights)))
    gone = PRUNING["signed_magnitude"](positions(weights), count)
    assert int(gone.sum()) == count
    for side in (1.0, -1.0):
        ours = [i for i, weight in enumerate(weights) if (weight >= 0) == (side > 0)]
        kept = [abs(weights[i]) for i in ours if not gone[i]]
        assert all(abs(weights[i]) <= min(kept, default=math.inf) for i in ours if gone[i])


def test_sign_flip_takes_what_has_crossed_zero() -> None:
    live = positions([0.1, -0.1, 0.1, -0.1, 0.0, 0.0], signs=[True, True, False, False, True, False])
    assert chosen(PRUNING["sign_flip"](live, 0)) == [1, 2]


def test_the_threshold_follows_the_count() -> None:
    live = positions([float(i) for i in range(1, 101)])
    assert chosen(PRUNING["threshold"](live, 20)) == list(range(20))
    assert live.memory == {"threshold": 20.0}
    assert chosen(PRUNING["threshold"](live, 19)) == list(range(19))  # all below 20; close enough
    assert live.memory == {"threshold": 20.0}
    assert len(chosen(PRUNING["threshold"](live, 10))) == 19  # far too many: halve it for the next time
    assert live.memory == {"threshold": 10.0}
    assert len(chosen(PRUNING["threshold"](live, 40))) == 9  # far too few: double it
    assert live.memory == {"threshold": 20.0}
    assert chosen(PRUNING["threshold"](live, 0)) == []


def test_the_threshold_is_never_zero() -> None:
    live = positions([0.0, 0.0, 3.0, 2.0])
    assert chosen(PRUNING["threshold"](live, 2)) == [0, 1]
    assert live.memory == {"threshold": 2.0}
    zeros = positions([0.0] * 4)
    assert chosen(PRUNING["threshold"](zeros, 2)) == [0, 1]
    assert zeros.memory == {}


def test_saliency_takes_the_smallest_products() -> None:
    live = positions([3.0, -2.0, 0.1, 1.0], gradients=[0.1, 0.5, -9.0, 0.2])
    assert chosen(PRUNING["saliency"](live, 2)) == [0, 3]
