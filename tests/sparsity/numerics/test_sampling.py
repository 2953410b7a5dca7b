"""Uniform choices of exact size, from generators that belong to what they are for."""

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_sparse_rnn.sparsity.numerics.sampling import choose, generator_for

CPU = torch.device("cpu")
DRAWS = 3000
#: Quantile 0.9999 of the chi-square distribution by degrees of freedom.
CHI_SQUARE_BOUND = {5: 25.74, 14: 42.58, 19: 50.80}


def chi_square_of_subsets(sample: Callable[[int, int, torch.Generator], Tensor], total: int, count: int) -> float:
    """Return how far the subsets that ``sample`` draws are from all being equally likely."""
    subsets = list(itertools.combinations(range(total), count))
    seen = Counter(
        tuple(sample(total, count, generator_for(0, draw, "w", CPU)).nonzero().flatten().tolist())
        for draw in range(DRAWS)
    )
    expected = DRAWS / len(subsets)
    return sum((seen[subset] - expected) ** 2 / expected for subset in subsets)


def overdrawn_and_trimmed(total: int, count: int, generator: torch.Generator) -> Tensor:
    """A sampler with a plausible mistake: it drops the surplus of its draws from the end."""
    drawn = torch.randint(total, (2 * count,), generator=generator).unique()
    while len(drawn) < count:
        drawn = torch.cat([drawn, torch.randint(total, (2 * count,), generator=generator)]).unique()
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[drawn[:count]] = True
    return chosen


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 2**40))
def test_count_is_exact(total: int, share: float, seed: int) -> None:
    count = round(share * total)
    chosen = choose(total, count, generator_for(seed, 1, "w", CPU))
    assert chosen.shape == (total,)
    assert chosen.dtype == torch.bool
    assert int(chosen.sum()) == count


@pytest.mark.parametrize(("total", "count"), [(6, 1), (6, 2), (6, 3), (6, 4), (6, 5)])
def test_every_subset_is_equally_likely(total: int, count: int) -> None:
    subsets = len(list(itertools.combinations(range(total), count)))
    assert chi_square_of_subsets(choose, total, count) < CHI_SQUARE_BOUND[subsets - 1]


def test_a_biased_sampler_fails_the_same_bound() -> None:
    assert chi_square_of_subsets(overdrawn_and_trimmed, 6, 3) > 2 * CHI_SQUARE_BOUND[19]


@pytest.mark.parametrize("count", [1_000, 5_000, 9_000])
def test_large_choices_favour_no_position(count: int) -> None:
    total, draws = 10_000, 60
    inclusions = sum(choose(total, count, generator_for(0, draw, "w", CPU)).double() for draw in range(draws))
    share = count / total
    # Each term has mean 1; their sum over the positions has standard deviation √(2 · total) or a little less.
    statistic = float(((inclusions - draws * share) ** 2 / (draws * share * (1 - share))).sum())
    assert abs(statistic - total) < 4 * (2 * total) ** 0.5


def test_seed_number_and_key_each_make_another_generator() -> None:
    def draw(seed: int, number: int, key: str) -> list[bool]:
        return choose(100, 50, generator_for(seed, number, key, CPU)).tolist()

    first = draw(1, 2, "a")
    assert draw(1, 2, "a") == first
    others = [draw(2, 2, "a"), draw(1, 1, "a"), draw(1, 2, "b"), draw(2, 1, "a"), draw(12, 2, "a"), draw(1, 22, "a")]
    assert first not in others
    assert len({tuple(other) for other in others}) == len(others)
