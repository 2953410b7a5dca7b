"""Prune rates over the share of training that is done."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.sparsity.rules.schedules import SCHEDULES, PruneRate, SparsityRamp

unit = st.floats(0, 1)


@pytest.mark.parametrize("name", ["cosine", "linear"])
@given(progress=unit, first=st.floats(0.01, 0.99))
def test_falls_from_first_to_last(name: str, progress: float, first: float) -> None:
    schedule = SCHEDULES[name]
    assert schedule(0.0, first, 0.005) == pytest.approx(first, rel=1e-12)
    assert schedule(1.0, first, 0.005) == pytest.approx(0.005, rel=1e-12)
    assert 0.005 - 1e-12 <= schedule(progress, first, 0.005) <= first + 1e-12
    assert schedule(min(1.0, progress + 0.1), first, 0.005) <= schedule(progress, first, 0.005) + 1e-12


@given(unit)
def test_cosine_is_the_formula_of_the_paper(progress: float) -> None:
    expected = 0.005 + (0.8 - 0.005) * (1 + math.cos(math.pi * progress)) / 2
    assert SCHEDULES["cosine"](progress, 0.8, 0.005) == pytest.approx(expected, rel=1e-12)


def test_values_by_hand() -> None:
    assert SCHEDULES["cosine"](0.5, 0.5, 0.1) == pytest.approx(0.3)
    assert SCHEDULES["cosine"](1 / 3, 0.5, 0.1) == pytest.approx(0.4)
    assert SCHEDULES["linear"](0.25, 0.5, 0.1) == pytest.approx(0.4)
    assert SCHEDULES["constant"](0.7, 0.5, 0.1) == 0.5
    assert SCHEDULES["cubic"](0.5, 0.0, 0.8) == pytest.approx(0.7)  # an eighth of the way is left
    assert SCHEDULES["cubic"](0.75, 0.5, 0.9) == pytest.approx(0.9 - 0.4 / 64)


def test_a_rate_has_an_end_unless_it_is_constant() -> None:
    assert PruneRate(0.8, 0.005, "cosine").at(0.5) == pytest.approx(0.4025)
    assert PruneRate(0.8, 0.005, "cosine").ends
    assert not PruneRate(0.3, 0.5, "constant").ends
    assert PruneRate(0.3, 0.5, "constant").at(1.0) == 0.3


def test_a_ramp_is_over_at_its_share_of_training() -> None:
    ramp = SparsityRamp(0.5, 0.9, "linear", 0.75)
    assert [ramp.at(progress) for progress in (0.0, 0.375, 0.75, 1.0)] == pytest.approx([0.5, 0.7, 0.9, 0.9])
