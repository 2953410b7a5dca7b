"""How far apart two topologies are, where the rows of each recurrent matrix are matched so that they differ least.

Within one matrix this is NNSTD (Liu et al., "Topological Insights into Sparse Neural Networks", ECML PKDD 2020). NNSTD
goes through the layers of a feed-forward network and carries the order it has found for one layer's neurons over to the
columns of the next layer's matrix. Here each matrix is matched alone and columns stay where they are: rows and columns
of a hidden-to-hidden matrix are the same neurons, so that matching both is a graph-matching problem, and no neuron
changes its place within a run. Two networks that differ only in the order of their hidden neurons are therefore not at
distance 0, except in matrices whose columns are no hidden neurons, such as the input weights of the first layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

__all__ = ["matrix_distance", "topological_distances"]

Gates = Mapping[str, Mapping[str, int]]


def topological_distances(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], gates: Gates
) -> dict[str, float]:
    """Return the distance of each tensor's two masks, in [0, 1], by name.

    Rows of recurrent layers' weights are matched, for each tensor anew. All other tensors are compared row by row as
    they are, since the rows of embeddings and decoders belong to words. Columns stay where they are in every tensor.

    Args:
        first, second: boolean masks by name, of the same names and shapes.
        gates: for each weight of a recurrent layer, its gates and their numbers of rows, in row order.

    Raises:
        ValueError: names or shapes differ.
    """
    shapes, others = ({name: mask.shape for name, mask in masks.items()} for masks in (first, second))
    if shapes != others:
        different = [name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name)]
        raise ValueError(
            f"Expected two topologies of the same tensors, got ones that differ in {', '.join(different)}."
        )
    return {
        name: matrix_distance(mask, second[name], list(gates[name].values()) if name in gates else None)
        for name, mask in first.items()
    }


def matrix_distance(first: np.ndarray, second: np.ndarray, gate_rows: Sequence[int] | None = None) -> float:
    """Return the mean normalised edit distance of the rows of two masks, in [0, 1].

    The distance of two rows is |A △ B| / |A ∪ B|, where A and B are the columns that are live in them; it is 0 if both
    are empty. Columns are never permuted.

    Args:
        first, second: boolean arrays of one shape; dimensions after the first count as columns.
        gate_rows: the rows of each gate, in row order. If given, rows are matched so that the mean is least. A neuron
            has one row in each of the gates that have equally many, and these rows are matched together, as one.
    """
    one, two = (mask.reshape(len(mask), -1) for mask in (first, second))
    if gate_rows is None:
        differing, union = (np.count_nonzero(found, axis=1) for found in (one ^ two, one | two))
        return float(np.mean(differing / np.maximum(union, 1)))
    starts = np.cumsum([0, *gate_rows])
    total = 0.0
    for rows in dict.fromkeys(gate_rows):
        gates = [slice(start, start + rows) for start, size in zip(starts, gate_rows, strict=False) if size == rows]
        costs = sum(_edit_distances(one[gate], two[gate]) for gate in gates)
        total += float(costs[linear_sum_assignment(costs)].sum())  # type: ignore[index]
    return total / max(1, sum(gate_rows))


def _edit_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distance of each row of the first from each row of the second, (rows, rows)."""
    one, two = first.astype(np.float32), second.astype(np.float32)  # exact: no count comes near 2²⁴
    assert math.prod(one.shape[1:]) < 2**24
    common = one @ two.T
    union = one.sum(axis=1)[:, None] + two.sum(axis=1)[None] - common
    distances: np.ndarray = np.where(union > 0, 1.0 - common / np.maximum(union, 1.0), 0.0)
    return distances
