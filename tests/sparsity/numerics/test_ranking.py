"""Exactly so many of the smallest or largest, against a sort in plain Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up_positions import chosen

from lightning_sparse_rnn.sparsity.numerics.ranking import largest, smallest

# A few distinct values make many ties, zeros of both signs among them.
tied = st.lists(st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0]), max_size=40)
distinct = st.lists(st.floats(-1e6, 1e6, width=32), max_size=40)


def smallest_by_sorting(weights: list[float], count: int) -> list[bool]:
    order = sorted(range(len(weights)), key=lambda i: (abs(weights[i]), i))
    return [i in order[:count] for i in range(len(weights))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@given(values=tied | distinct, share=st.floats(0, 1))
def test_magnitude_marks_the_smallest_and_the_earlier_of_equals(
    dtype: torch.dtype, values: list[float], share: float
) -> None:
    weights = torch.tensor(values, dtype=torch.float64).clamp(-60_000, 60_000).to(dtype)
    count = round(share * len(values))
    marked = smallest(weights.abs(), count)
    assert marked.dtype == torch.bool
    assert marked.tolist() == smallest_by_sorting(weights.tolist(), count)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]) | st.floats(-10, 10, width=32), max_size=30), st.data())
def test_largest_is_the_other_end_of_smallest(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert chosen(largest(torch.tensor(values, dtype=torch.float64), count)) == sorted(order[:count])


@pytest.mark.parametrize("zeros", [0.0, 0.4, 0.99, 1.0])
@pytest.mark.parametrize("order", ["random", "ascending", "periodic"])
def test_ranks_among_more_values_than_are_sampled(zeros: float, order: str) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(300_000, generator=generator).abs()
    values[torch.rand(300_000, generator=generator) < zeros] = 0.0
    if order == "ascending":
        values = values.sort().values
    if order == "periodic":
        values[::3] = 5.0  # all that is sampled
    for count in (1, 1000, 150_000, 299_999, 300_000):
        marked = smallest(values, count)
        assert int(marked.sum()) == count
        assert values[marked].max() <= values[~marked].min() if count < 300_000 else marked.all()
        bound = values[marked].max()
        ties = (values == bound).nonzero().flatten()
        assert torch.equal(marked[ties], marked[ties].sort(descending=True).values)
