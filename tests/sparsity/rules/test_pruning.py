"""Which live weights go, against a sort in plain Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.sparsity.numerics.ranking import smallest

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
