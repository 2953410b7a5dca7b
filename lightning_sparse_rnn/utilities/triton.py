"""Whether Triton's kernels can be had on a device."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

__all__ = ["triton_works"]


def triton_works(device: torch.device, launch: Callable[[], object], otherwise: str) -> bool:
    """Return whether a first launch of a kernel succeeds.

    Triton comes with torch where it can, and compiles at its first call, for which it needs a C compiler.

    Args:
        device: where the kernel is launched.
        launch: imports it and launches it.
        otherwise: what is done without, for a warning; Triton not being there at all goes without one.
    """
    try:
        launch()
        torch.cuda.synchronize(device)
    except ModuleNotFoundError:
        return False
    except Exception as error:
        warnings.warn(
            f"Triton does not work on {device}, so {otherwise}, which is slower and right all the same: {error}",
            stacklevel=3,
        )
        return False
    return True
