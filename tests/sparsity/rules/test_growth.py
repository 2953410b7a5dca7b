"""Every growth rule by hand."""

import pytest
from made_up_positions import chosen, positions

from lightning_sparse_rnn.sparsity.rules.growth import GROWTH


@pytest.mark.parametrize(
    ("count", "must", "may"),
    [
        (0, [], []),
        (2, [], [1, 2, 4]),
        (3, [1, 2, 4], []),
        (4, [1, 2, 4], [0, 3]),  # there is room for three: one comes back where it was
        (5, [0, 1, 2, 3, 4], []),
    ],
)
def test_growth_elsewhere_leaves_what_was_just_pruned_while_there_is_room(
    count: int, must: list[int], may: list[int]
) -> None:
    drawn = []
    free = positions([0.5, 0.0, 0.0, -0.1, -0.0])  # the first and the fourth were pruned a moment ago
    for _ in range(60):
        drawn.append(chosen(GROWTH["random_elsewhere"](free, count)))
        assert len(drawn[-1]) == count
        assert set(must) <= set(drawn[-1]) <= {*must, *may}
    assert {at for each in drawn for at in each} == {*must, *may}


@pytest.mark.parametrize(("rule", "quantity"), [("gradient", "gradients"), ("momentum", "momenta")])
def test_growth_where_the_gradient_is_largest(rule: str, quantity: str) -> None:
    where = [True, False, True, True, False, True]
    free = positions([0.0] * 6, where, **{quantity: [0.1, 9.0, -3.0, 0.0, -8.0, 3.0]})
    assert chosen(GROWTH[rule](free, 2)) == [1, 3]  # of the free positions: the second and the fourth
    assert chosen(GROWTH[rule](free, 1)) == [1]  # of equal ones the earlier
