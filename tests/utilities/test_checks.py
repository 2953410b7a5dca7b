"""Checks of options."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from lightning_sparse_rnn.utilities.checks import check_flags, check_fraction, check_whole


@pytest.mark.parametrize("value", [0, 0.0, 0.5, np.float32(0.5), np.float64(0.25), np.int64(0), Fraction(3, 4)])
def test_real_numbers_of_every_kind_become_floats(value: object) -> None:
    checked = check_fraction("rate", value)  # type: ignore[arg-type]
    assert type(checked) is float
    assert checked == value


@pytest.mark.parametrize("value", [True, np.True_, "0.5", None, 0.5j, torch.tensor(0.5)])
def test_what_is_no_real_number_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"`rate` to be a number in \[0, 1\), got .* \(\w+\)\."):
        check_fraction("rate", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, r"got 1\.$"),
        (1.0, r"got 1\.0\.$"),
        (-0.1, r"got -0\.1\.$"),
        (float("nan"), r"got nan\.$"),
        (67, r"got 67\. Did you mean 0\.67\?$"),
        (np.float32(12.5), r"got 12\.5\. Did you mean 0\.125\?$"),
        (100, r"got 100\.$"),
    ],
)
def test_numbers_out_of_range_are_refused_with_a_hint_at_percentages(value: float, said: str) -> None:
    with pytest.raises(ValueError, match=r"Expected `rate` in \[0, 1\), " + said):
        check_fraction("rate", value)


@pytest.mark.parametrize("value", [1, np.int64(3)])
def test_whole_numbers_of_every_kind_pass(value: int) -> None:
    check_whole(every=value)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_what_is_no_whole_number_or_too_small_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"Expected `every` to be a whole number of at least 1, got "):
        check_whole(every=value)


@pytest.mark.parametrize("flag", ["no", 0, 1, None, "true"])
def test_what_is_neither_true_nor_false_is_refused(flag: object) -> None:
    check_flags(tied=True, fused=False)
    with pytest.raises(ValueError, match="Expected `tied` to be true or false, got "):
        check_flags(fused=True, tied=flag)
