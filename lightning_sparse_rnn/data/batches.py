"""Text cut into columns that are read side by side, some time steps of all columns at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from lightning_sparse_rnn.data.lengths import SequenceLengths
from lightning_sparse_rnn.data.part_order import PartOrder

__all__ = ["ColumnBatches"]


class ColumnBatches:
    """One text as time-major batches for truncated backpropagation through time.

    The text is cut into equal contiguous columns, its remainder dropped, and the columns are read in
    parallel: each batch is `(inputs, targets)`, both int64 of shape (T, B), with `targets` one step
    ahead. The state a model carries from batch to batch thus belongs to the text just before. The last batch
    of an epoch may be shorter. Batches are views of one contiguous tensor; reading them copies nothing.

    With an order of parts, every epoch puts the parts of the text in an order of its own before it cuts the text into
    columns: they begin elsewhere, and the remainder that is dropped is another. An epoch's start then copies the
    text and its columns once; its batches are views as before.

    With several processes the text is cut into `columns * world_size` columns and each process reads its
    own `columns` of them: together they see what one process with all columns would.

    Iterating has no side effects. Which epoch it is, and which of its batches is processed next, is the
    trainer's to say (`position`): a loader only knows which it has handed out, and trainers fetch ahead.
    In a loop of one's own, iterate over `epoch(0)`, `epoch(1)`, … instead.

    `state_dict` and `load_state_dict` are Lightning's protocol for resuming in the middle of an epoch.

    Args:
        ids: the text, 1-D int64.
        columns: columns per process, B.
        lengths: time steps of the batches, T.
        rank: this process's number.
        world_size: how many processes there are.
        order: in which order epochs read the parts of the text. None: as it stands.
        device: where the text lies, whole, so that no batch has to be moved there. None: the CPU.
        position: gives the epoch and the batch in it that the trainer processes next. None: a text that
            is always read from its start, as in evaluation.

    Raises:
        ValueError: if an argument is out of range, or the text too short for one batch.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.data import ColumnBatches, SequenceLengths
        >>> batches = ColumnBatches(torch.arange(12), columns=2, lengths=SequenceLengths(3))
        >>> for inputs, targets in batches:
        ...     print(inputs.tolist(), targets.tolist())
        [[0, 6], [1, 7], [2, 8]] [[1, 7], [2, 8], [3, 9]]
        [[3, 9], [4, 10]] [[4, 10], [5, 11]]
    """

    def __init__(
        self,
        ids: Tensor,
        columns: int,
        lengths: SequenceLengths,
        *,
        rank: int = 0,
        world_size: int = 1,
        order: PartOrder | None = None,
        device: torch.device | None = None,
        position: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        if columns < 1:
            raise ValueError(f"Expected at least 1 column, got {columns}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"Expected `rank` in [0, {world_size}), got {rank}.")
        total = columns * world_size
        rows = len(ids) // total
        if rows < 2:  # an input and its target
            raise ValueError(
                f"Expected a text of at least {2 * total} tokens, two for each of {total} columns ({columns} on"
                f" each of {world_size} processes), got {len(ids)}. Lower the batch size."
            )
        if order is not None and order.parts > rows:
            raise ValueError(
                f"Expected `shuffle_parts` of at most {rows}, so that every part of the {len(ids)} tokens has one for"
                f" each of {total} columns, got {order.parts}. Give fewer parts, or lower the batch size."
            )
        self._rows = rows
        self._total = total
        self._own = slice(rank * columns, (rank + 1) * columns)
        self._order = order
        # Cut once, unless every epoch cuts the text in an order of its own.
        text = self._in_columns(ids) if order is None else ids
        self._text = text.to(device or ids.device)
        self._lengths = lengths
        self._position = position
        self._resumed = (0, 0)
        # What has to be the same for a position in mid-epoch to mean the same place.
        self._cut = {"tokens": len(ids), "columns": total, **asdict(lengths)}
        if order is not None:
            self._cut |= {"shuffle_parts": order.parts, "parts_seed": order.seed}

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `index`, from batch `start` on."""
        rows = self._text if self._order is None else self._in_columns(self._order.read(self._text, index))
        last = self._rows - 1  # the last row is a target only
        row = 0
        for batch, length in enumerate(self._lengths.epoch(index)):
            if row == last:
                return
            end = min(row + length, last)
            if batch >= start:
                yield rows[row:end], rows[row + 1 : end + 1]
            row = end

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self._position()[0] if self._position is not None else 0
        # Once the trainer has reached a later epoch, the position resumed from no longer applies.
        return self.epoch(*max((epoch, 0), self._resumed))

    def __len__(self) -> int:
        """Batches in an epoch.

        Raises:
            TypeError: with drawn lengths, as for an object without a length.
        """
        # Drawn lengths give each epoch its own number of batches. Given a number, Lightning would take the
        # first epoch's for all of them and cut the longer ones short; without, it reads each to its end.
        if self._lengths.kind == "drawn":
            raise TypeError("Batches of drawn lengths have no len(): it differs from epoch to epoch.")
        return -(-(self._rows - 1) // self._lengths.bptt)

    def _in_columns(self, text: Tensor) -> Tensor:
        """This process's columns of `text`, (rows, columns)."""
        own = text[: self._rows * self._total].view(self._total, self._rows)[self._own]
        return own.t().contiguous()

    def state_dict(self) -> dict[str, Any]:
        """Which batch of which epoch is processed next, and how the text is cut; plain values only."""
        epoch, batch = self._position() if self._position is not None else self._resumed
        return {"epoch": epoch, "batch": batch, "cut": self._cut}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was saved.

        Raises:
            ValueError: if that was in the middle of an epoch and the text is now cut in another way.
        """
        was = state["cut"]
        if state["batch"] > 0 and was != self._cut:
            differences = ", ".join(
                f"{name} {was.get(name)} (now {self._cut.get(name)})"
                for name in {**self._cut, **was}
                if was.get(name) != self._cut.get(name)
            )
            raise ValueError(
                "Expected the text cut as it was when this checkpoint was saved in the middle of an epoch, with"
                f" {differences}. Give the same settings, or resume from a checkpoint of the end of an epoch."
            )
        self._resumed = (state["epoch"], state["batch"])
