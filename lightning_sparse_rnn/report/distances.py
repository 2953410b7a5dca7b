"""Distances between the topologies that runs have kept: as many as there is time for, and none measured twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from lightning_sparse_rnn.report.groups import Group
from lightning_sparse_rnn.report.mask_distance import topological_distances
from lightning_sparse_rnn.runs.reading import Run
from lightning_sparse_rnn.sparsity.mask_files import load_masks
from lightning_sparse_rnn.utilities.whole_files import write_json

__all__ = ["Distances", "Meter", "measure"]

_MOST_GROUPS = 12
# Matching n neurons with n others takes this many seconds times n³ on one core: 0.2 to 0.9 s for n = 1500, whether
# masks are random, uneven, nested, or made from one another by moving weights.
_SECONDS_A_CUBE = 3e-10
ByTensor = dict[str, float]


@dataclass
class Distances:
    """What was measured.

    Attributes:
        names: the groups whose final topologies were compared.
        between: a square of their distances. The diagonal has the distance between two seeds of one group. ``None``
            where there is no distance.
        moves: for one run of each group, the points (epochs trained, distance from its first topology).
        moves_by_tensor: for each group, the last of these distances, tensor by tensor.
        left_out: sentences that say what was not measured, and why.
    """

    names: list[str] = field(default_factory=list)
    between: list[list[float | None]] = field(default_factory=list)
    moves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    moves_by_tensor: dict[str, ByTensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Kept:
    """A file of masks, and the run that has kept it."""

    path: Path
    run: Run


class Meter:
    """Measures distances until its time is over, and remembers them in a file.

    A meter serves one report: it takes it that files of masks stay as they are.

    Args:
        seconds: how long it measures in all. A distance that might take longer than that by itself is not begun.
        memory: a JSON file of the distances that are known, by the contents of the two files of masks. It need not
            exist.
    """

    def __init__(self, seconds: float, memory: Path) -> None:
        self.seconds = seconds
        self.refused = 0
        # Each final topology is compared with many others. What is kept here goes with the meter, so that the next
        # report in this process reads files that have changed since.
        self.masks = lru_cache(maxsize=4)(load_masks)
        self._digest = cache(_digest)
        self._memory = memory
        self._known = _read(memory)
        self._size = len(self._known)
        self._spent = 0.0

    def between(self, one: _Kept, other: _Kept) -> ByTensor | None:
        """Return the distances by tensor; ``None`` if there is no time.

        Raises:
            ValueError: a file cannot be read, or the networks are of different shapes.
        """
        began = time.perf_counter()
        try:
            key = " ".join(sorted((self._digest(one.path), self._digest(other.path))))
            if key not in self._known:
                gates = one.run.gates()
                if self._spent > self.seconds or _seconds(gates) > self.seconds:
                    self.refused += 1
                    return None
                first, second = self.masks(one.path), self.masks(other.path)
                self._known[key] = topological_distances(first, second, _rows(gates, first))
            return self._known[key]
        finally:
            self._spent += time.perf_counter() - began

    def remember(self) -> None:
        """Write down what was measured."""
        if len(self._known) > self._size:
            write_json(self._memory, self._known)


def measure(groups: Sequence[Group], meter: Meter) -> Distances:
    """Return the distances between the groups' final topologies, and how far one run of each has moved from its first.

    Files that cannot be read are left out and added to their run's problems.
    """
    found = Distances()
    sparse = [group for group in groups if any(run.masks() for run in group.runs)]
    if len(sparse) > _MOST_GROUPS:
        found.left_out.append(
            f"Distances of the topologies of {len(sparse) - _MOST_GROUPS} groups of runs: the first {_MOST_GROUPS} by "
            "test perplexity are compared. Report on fewer runs to see others."
        )
    for group in sparse[:_MOST_GROUPS]:
        run = next((run for run in group.runs if len(run.masks()) > 1), None)
        if run is not None:
            _measure_moves(group.name, run, meter, found)
    finals = {group.name: kept for group in sparse[:_MOST_GROUPS] if (kept := _finals(group, meter))}
    found.names = list(finals)
    found.between = [[None] * len(finals) for _ in finals]
    shapes_differ = False
    for i, one in enumerate(finals.values()):
        for j, other in enumerate(list(finals.values())[: i + 1]):
            pair = (one[0], other[0]) if i != j else (one[0], one[1]) if len(one) > 1 else None
            try:
                distance = None if pair is None else meter.between(*pair)
            except ValueError:  # not for a broken file: both have been read already
                shapes_differ = True
                continue
            if distance:
                found.between[i][j] = found.between[j][i] = _mean(distance)
    if shapes_differ:
        found.left_out.append("Distances between networks of different shapes, for which none is defined.")
    if meter.refused:
        found.left_out.append(
            f"{meter.refused} distances of topologies: the time for them ({meter.seconds:g} s) was over, or might not "
            "have been enough for a single one. Give more with --distance-seconds; what was measured is not measured "
            "again."
        )
    meter.remember()
    return found


def _measure_moves(name: str, run: Run, meter: Meter, found: Distances) -> None:
    """Add the distances of a run's topologies from its first to what was ``found``."""
    kept = [(epochs, _Kept(path, run)) for epochs, path in run.masks() if _readable(path, run, meter)]
    if len(kept) < 2:
        return
    first, start = kept[0]
    points = [(first, 0.0)]
    for epochs, each in kept[1:]:
        try:
            distance = meter.between(start, each)
        except ValueError as error:
            run.problems.append(f"distances of its masks: {error}")
            return
        if distance is None:
            continue
        points.append((epochs, _mean(distance)))
        if each is kept[-1][1]:
            found.moves_by_tensor[name] = distance
    if len(points) > 1:
        found.moves[name] = points


def _finals(group: Group, meter: Meter) -> list[_Kept]:
    """Return the last topologies of the group's finished runs, two at most."""
    found = []
    for run in group.finished:
        masks = run.masks()
        if masks and _readable(masks[-1][1], run, meter):
            found.append(_Kept(masks[-1][1], run))
        if len(found) == 2:
            break
    return found


def _readable(path: Path, run: Run, meter: Meter) -> bool:
    """Whether a file of masks can be read; if not, that is among the run's problems afterwards."""
    try:
        meter.masks(path)
    except (ValueError, OSError) as error:
        text = f"masks/{path.name} cannot be read: {str(error).rpartition(': ')[2]}"
        if text not in run.problems:
            run.problems.append(text)
        return False
    return True


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()


def _rows(gates: Mapping[str, Mapping[str, int]], masks: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Return each gate's number of rows, from its number of positions.

    Raises:
        ValueError: the gates are of other tensors than the masks.
    """
    rows = {}
    for name, sizes in gates.items():
        if name not in masks or sum(sizes.values()) != masks[name].size:
            raise ValueError(f"Expected masks of the tensors in topology.csv, and {name} is another.")
        columns = masks[name].size // len(masks[name])
        rows[name] = {gate: size // columns for gate, size in sizes.items()}
    return rows


def _seconds(gates: Mapping[str, Mapping[str, int]]) -> float:
    """Return about how long a distance might take, if each gate's part of a matrix is about square."""
    return sum(_SECONDS_A_CUBE * max(sizes.values()) ** 1.5 for sizes in gates.values())


def _mean(distance: ByTensor) -> float:
    return sum(distance.values()) / max(1, len(distance))


def _read(path: Path) -> dict[str, ByTensor]:
    """Return the distances that a file remembers; none if it cannot be read."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
