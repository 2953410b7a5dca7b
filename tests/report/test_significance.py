"""Paired differences and their intervals, by hand and by the printed table of Student's t."""

import math
import statistics

import pytest

from lightning_sparse_rnn.report.significance import paired_difference


def test_differences_by_hand() -> None:
    found = paired_difference({"1": 12.0, "2": 15.0, "3": 15.0, "9": 1.0}, {"1": 10.0, "2": 11.0, "3": 12.0, "4": 0.0})
    # Differences 2, 4, 3: mean 3, deviation 1; 4.3027·1/√3 = 2.4841.
    assert found is not None
    assert (found.pairs, found.mean) == (3, 3.0)
    assert found.half_width == pytest.approx(2.4841, abs=1e-4)
    assert found.interval == pytest.approx((0.5159, 5.4841), abs=1e-4)


@pytest.mark.parametrize(
    ("freedom", "printed"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_of_the_printed_table(freedom: int, printed: float) -> None:
    values = {str(seed): float(seed) for seed in range(freedom + 1)}
    found = paired_difference(values, dict.fromkeys(values, 0.0))
    assert found is not None
    assert found.half_width is not None
    error_of_mean = statistics.stdev(values.values()) / math.sqrt(len(values))
    assert found.half_width / error_of_mean == pytest.approx(printed, abs=5e-4)


def test_one_pair_has_no_interval_and_none_no_difference() -> None:
    one = paired_difference({"1": 12.0}, {"1": 10.0, "2": 1.0})
    assert one is not None
    assert (one.pairs, one.mean, one.half_width, one.interval) == (1, 2.0, None, None)
    assert paired_difference({"1": 12.0}, {"2": 10.0}) is None
