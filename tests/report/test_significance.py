"""Paired differences and their intervals, by hand and by the printed table of Student's t."""

import pytest

from lightning_sparse_rnn.report.significance import paired_difference


def test_differences_by_hand() -> None:
    found = paired_difference({"1": 12.0, "2": 15.0, "3": 15.0, "9": 1.0}, {"1": 10.0, "2": 11.0, "3": 12.0, "4": 0.0})
    # Differences 2, 4, 3: mean 3, deviation 1; 4.3027·1/√3 = 2.4841.
    assert found is not None
    assert (found.pairs, found.mean) == (3, 3.0)
    assert found.half_width == pytest.approx(2.4841, abs=1e-4)
    assert found.interval == pytest.approx((0.5159, 5.4841), abs=1e-4)


def test_the_quantile_of_the_printed_table_for_two_pairs() -> None:
    found = paired_difference({"1": 0.0, "2": 2.0}, {"1": 0.0, "2": 0.0})
    # Deviation √2, over √2 for two pairs: the half width is the quantile of one degree of freedom itself.
    assert found is not None
    assert found.half_width == pytest.approx(12.7062, abs=1e-4)


def test_one_pair_has_no_interval_and_none_no_difference() -> None:
    one = paired_difference({"1": 12.0}, {"1": 10.0, "2": 1.0})
    assert one is not None
    assert (one.pairs, one.mean, one.half_width, one.interval) == (1, 2.0, None, None)
    assert paired_difference({"1": 12.0}, {"2": 10.0}) is None
