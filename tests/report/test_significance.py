"""Paired differences and Student's t, by hand and by the printed tables."""

import math

import pytest

from lightning_sparse_rnn.report.significance import paired_difference, student_quantile


@pytest.mark.parametrize(
    ("freedom", "printed"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_of_the_printed_table(freedom: int, printed: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(printed, abs=5e-4)


def test_quantiles_that_have_a_closed_form() -> None:
    # One degree of freedom is Cauchy's: tan(π(p − ½)). Two: (2p − 1)·√(2 / (4p(1 − p))).
    for p in (0.6, 0.9, 0.975, 0.995):
        assert student_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9)
        assert student_quantile(p, 2) == pytest.approx((2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p))), rel=1e-9)
    assert student_quantile(0.5, 7) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("probability", "freedom"), [(0.4, 3), (1.0, 3), (0.975, 0)])
def test_arguments_out_of_range(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match=r"Expected a probability in \[0.5, 1\)"):
        student_quantile(probability, freedom)


def test_differences_by_hand() -> None:
    found = paired_difference({"1": 12.0, "2": 15.0, "3": 15.0, "9": 1.0}, {"1": 10.0, "2": 11.0, "3": 12.0, "4": 0.0})
    # Differences 2, 4, 3: mean 3, deviation 1; 4.3027·1/√3 = 2.4841.
    assert found is not None
    assert (found.pairs, found.mean) == (3, 3.0)
    assert found.half_width == pytest.approx(2.4841, abs=1e-4)
    assert found.interval == pytest.approx((0.5159, 5.4841), abs=1e-4)


def test_one_pair_has_no_interval_and_none_no_difference() -> None:
    one = paired_difference({"1": 12.0}, {"1": 10.0, "2": 1.0})
    assert one is not None
    assert (one.pairs, one.mean, one.half_width, one.interval) == (1, 2.0, None, None)
    assert paired_difference({"1": 12.0}, {"2": 10.0}) is None
