"""Lengths of time in words: those that were measured, and those that are guessed."""

from __future__ import annotations

import pytest

from lightning_sparse_rnn.utilities.durations import duration, rough_duration

SAID = {
    0: ("0 s", "a few seconds"),
    4.9: ("5 s", "a few seconds"),
    6: ("6 s", "about 10 s"),
    58: ("58 s", "about 1 min"),
    842: ("14 min 2 s", "about 15 min"),
    3540: ("59 min", "about 1 h"),
    10_000: ("2 h 46 min", "about 2 h 45 min"),
    30_000: ("8 h 20 min", "about 8 h"),
    100_000: ("1 d 3 h", "about 1 d 4 h"),
    200_000: ("2 d 7 h", "about 2 d"),
}


@pytest.mark.parametrize("seconds", SAID)
def test_a_length_of_time_in_words(seconds: float) -> None:
    assert (duration(seconds), rough_duration(seconds)) == SAID[seconds]
