"""How many rows of logits are held at a time."""

from __future__ import annotations

from torch import Tensor

__all__ = ["rows_at_a_time"]


# 32 MiB in float32 on a CPU, and 256 MiB elsewhere.
_LOGITS_AT_A_TIME = 2**23


_LOGITS_AT_A_TIME_ON_DEVICES = 2**26


def rows_at_a_time(values: Tensor, logits_a_row: int) -> int:
    """Of how many rows to hold the logits at a time, where they need not all be held: on the device of `values`."""
    return max(1, (_LOGITS_AT_A_TIME if values.is_cpu else _LOGITS_AT_A_TIME_ON_DEVICES) // logits_a_row)
