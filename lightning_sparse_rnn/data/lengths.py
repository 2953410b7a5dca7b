"""How many time steps each batch of an epoch has: always the same, or drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from lightning_sparse_rnn.utilities.checks import check_whole

__all__ = ["LENGTHS", "SequenceLengths"]

LENGTHS = ("fixed", "drawn")

_SHORTEST = 5
_SPREAD = 5.0
_HALF_PROBABILITY = 0.05


@dataclass(frozen=True)
class SequenceLengths:
    """The sequence lengths of every epoch.

    "fixed" lengths are all `bptt`. "drawn" ones (Merity et al. 2018, section 5) come anew for each batch:

        base   = bptt with probability 0.95, else bptt / 2
        length = max(5, ⌊N(base, 5)⌋), and at most bptt + max_extra if that is given

    They are drawn from a generator made of (`seed`, epoch): nothing global is consumed, all processes draw
    the same, and an epoch taken up in its middle goes on as it would have.

    Args:
        bptt: time steps, at least 1; at least 5 for drawn lengths.
        kind: "fixed" or "drawn".
        max_extra: with drawn lengths: how far one may pass `bptt`. None: no limit.
        seed: seed of drawn lengths, at least 0.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> from itertools import islice
        >>> from lightning_sparse_rnn.data import SequenceLengths
        >>> list(islice(SequenceLengths(35).epoch(0), 3))
        [35, 35, 35]
        >>> lengths = SequenceLengths(70, kind="drawn", max_extra=20)
        >>> all(5 <= length <= 90 for length in islice(lengths.epoch(0), 100))
        True
    """

    bptt: int
    kind: str = "fixed"
    max_extra: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in LENGTHS:
            raise ValueError(f"Expected `lengths` to be one of {', '.join(LENGTHS)}, got {self.kind!r}.")
        check_whole(bptt=self.bptt)
        if self.kind == "drawn" and self.bptt < _SHORTEST:
            raise ValueError(f"Expected `bptt` of at least {_SHORTEST} with drawn lengths, got {self.bptt}.")
        if self.max_extra is not None and self.kind == "fixed":
            raise ValueError(
                f"Expected no `max_extra` with fixed lengths, got {self.max_extra}. Set `lengths` to 'drawn'."
            )
        check_whole(0, seed=self.seed, max_extra=0 if self.max_extra is None else self.max_extra)

    def epoch(self, index: int) -> Iterator[int]:
        """The lengths of epoch `index`, without end."""
        return repeat(self.bptt) if self.kind == "fixed" else self._drawn(index)

    def _drawn(self, epoch: int) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, epoch))
        while True:
            base = self.bptt / 2 if generator.random() < _HALF_PROBABILITY else self.bptt
            length = max(_SHORTEST, int(generator.normal(base, _SPREAD)))
            yield length if self.max_extra is None else min(length, self.bptt + self.max_extra)
