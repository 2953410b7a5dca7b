"""Sharing a whole number exactly."""

from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.sparsity.numerics.apportion import apportion

cases = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1000)), min_size=1, max_size=8)


@given(cases, st.floats(0, 1))
def test_the_sum_is_exact_no_limit_is_passed_and_shares_are_kept(cases: list[tuple[float, int]], part: float) -> None:
    shares, limits = [share for share, _ in cases], [limit for _, limit in cases]
    total = round(part * sum(limits))
    counts = apportion(total, shares, limits)
    assert sum(counts) == total
    assert all(0 <= count <= limit for count, limit in zip(counts, limits, strict=True))
    # Whoever has room left has no less than its share would be at the rate of any other that got something.
    for count, share, limit in zip(counts, shares, limits, strict=True):
        if count < limit and share > 0:
            for other, other_share in zip(counts, shares, strict=True):
                assert other_share == 0 or other == 0 or (other - 1) / other_share <= (count + 1) / share + 1e-9


def test_values_by_hand() -> None:
    assert apportion(10, [1, 1, 2], [100, 100, 100]) == [3, 2, 5]  # 2.5, 2.5 and 5: the earlier is rounded up
    assert apportion(10, [1, 1, 8], [100, 100, 4]) == [3, 3, 4]  # the third's limit leaves 6 to the others
    assert apportion(6, [0, 0], [4, 8]) == [2, 4]  # nobody claims anything: by room
    assert apportion(6, [5, 0, 0], [2, 4, 4]) == [2, 2, 2]  # who claims has all it can have
    assert apportion(0, [1.0], [0]) == [0]
