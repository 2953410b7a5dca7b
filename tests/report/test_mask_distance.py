"""The distance of two topologies, by hand, against all permutations, and what it makes of neurons in another order."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.report.mask_distance import matrix_distance, topological_distances


def mask(*rows: str) -> np.ndarray:
    return np.array([[entry == "1" for entry in row] for row in rows])


def edit_distance(one: np.ndarray, other: np.ndarray) -> float:
    first, second = ({i for i, live in enumerate(row) if live} for row in (one, other))
    return len(first ^ second) / len(first | second) if first | second else 0.0


def by_all_permutations(first: np.ndarray, second: np.ndarray, gates: int) -> float:
    """The least mean distance over all orders of the second's rows, the same in every gate."""
    rows = len(first) // gates
    return min(
        sum(
            edit_distance(first[gate * rows + i], second[gate * rows + j])
            for gate in range(gates)
            for i, j in enumerate(order)
        )
        for order in permutations(range(rows))
    ) / len(first)


@given(gates=st.integers(1, 3), rows=st.integers(1, 4), columns=st.integers(1, 6), seed=st.integers(0, 1000))
def test_it_is_the_least_over_all_permutations(gates: int, rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.random((2, gates * rows, columns)) < 0.4
    expected = by_all_permutations(first, second, gates)
    assert matrix_distance(first, second, [rows] * gates) == pytest.approx(expected, abs=1e-6)
    assert matrix_distance(second, first, [rows] * gates) == pytest.approx(expected, abs=1e-6)
    in_place = np.mean([edit_distance(one, other) for one, other in zip(first, second, strict=True)])
    assert matrix_distance(first, second) == pytest.approx(in_place)
    assert expected <= in_place + 1e-9


def test_values_by_hand() -> None:
    first, second = mask("1100", "0011", "0000"), mask("0011", "1110", "0000")
    assert matrix_distance(first, second) == pytest.approx((4 / 4 + 3 / 4 + 0) / 3)
    assert matrix_distance(first, second, [3]) == pytest.approx((1 / 3 + 0 + 0) / 3)
    # Two gates of one neuron each: there is nothing to match.
    assert matrix_distance(first[:2], second[:2], [1, 1]) == pytest.approx((1 + 3 / 4) / 2)
    assert matrix_distance(mask("11", "00"), mask("00", "00"), [2]) == pytest.approx(1 / 2)


def test_rows_in_another_order_are_at_distance_0_if_those_of_all_gates_move_along() -> None:
    random = np.random.default_rng(0)
    first = random.random((3, 8, 20)) < 0.3
    order = random.permutation(8)
    assert matrix_distance(first.reshape(24, 20), first[:, order].reshape(24, 20), [8, 8, 8]) == 0.0
    torn = np.concatenate([first[:1, order], first[1:]]).reshape(24, 20)
    assert matrix_distance(first.reshape(24, 20), torn, [8, 8, 8]) > 0.1


def test_columns_in_another_order_are_not_at_distance_0() -> None:
    first = mask("1100", "0011", "1010")
    # The last two columns change places: the third row has no equal any more, and |A △ B| / |A ∪ B| is 2/3.
    assert matrix_distance(first, first[:, [0, 1, 3, 2]], [3]) == pytest.approx((0 + 0 + 2 / 3) / 3)


def test_the_same_network_with_its_neurons_in_another_order() -> None:
    random = np.random.default_rng(0)
    rows, order = 6, random.permutation(6)
    shapes = {"embedding": (9, 6), "ih_l0": (12, 6), "hh_l0": (12, 6), "ih_l1": (12, 6), "decoder": (9, 6)}
    first = {name: random.random(shape) < 0.4 for name, shape in shapes.items()}
    gates = {name: {"update": rows, "candidate": rows} for name in ("ih_l0", "hh_l0", "ih_l1")}
    both = np.concatenate([order, rows + order])
    # The neurons of layer 0, whose outputs go to itself and to layer 1; then those of layer 1, which go to the decoder.
    second = {
        "embedding": first["embedding"],
        "ih_l0": first["ih_l0"][both],
        "hh_l0": first["hh_l0"][both][:, order],
        "ih_l1": first["ih_l1"][both][:, order],
        "decoder": first["decoder"][:, order],
    }
    found = topological_distances(first, second, gates)
    assert {name for name, distance in found.items() if distance == 0} == {"embedding", "ih_l0"}
    assert all(distance > 0.2 for name, distance in found.items() if name not in ("embedding", "ih_l0"))


def test_gates_of_other_sizes_are_matched_by_themselves() -> None:
    first = mask("10", "01", "11", "10", "01")  # two chunks, then three neurons
    second = mask("01", "10", "01", "11", "10")
    assert matrix_distance(first, second, [2, 3]) == 0.0


def test_rows_of_words_stay_where_they_are_and_those_of_neurons_are_matched() -> None:
    masks = {"embedding.weight": mask("10", "01"), "rnn.weight_hh_l0": mask("10", "01")}
    swapped = {name: rows[::-1] for name, rows in masks.items()}
    gates = {"rnn.weight_hh_l0": {"hidden": 2}}
    assert topological_distances(masks, swapped, gates) == {"embedding.weight": 1.0, "rnn.weight_hh_l0": 0.0}
    kernels = {"conv": np.ones((2, 1, 3), bool)}
    assert topological_distances(kernels, kernels, {}) == {"conv": 0.0}


def test_topologies_of_other_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same tensors, got ones that differ in b"):
        topological_distances({"a": mask("1"), "b": mask("1")}, {"a": mask("1"), "b": mask("11")}, {})
