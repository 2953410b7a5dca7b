"""Loops of many small GPU kernels, launched as one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["float32_precision", "kernel_by_kernel", "record", "recorded"]

Function = Callable[..., tuple[Tensor, ...]]
Results = tuple[Tensor | None, ...]

# Whether recordings are off for the time being, in all threads: autograd has some of its own.
_off = False

# A run of drawn lengths comes to some sixty, in layers of three shapes.
_MOST_RECORDINGS = 192
# Room is made for somewhat longer sequences than the first ones.
_SPARE = 1.25


def recorded(function: Function) -> Function:
    """Make a function of tensors run as a CUDA graph from the second call of the same shapes on.

    A recurrence in Python is hundreds of kernels that take less time than their launches. Recorded, they are launched
    together. On a CPU the function is called as it is.

    Args:
        function: from tensors and plain values to a tuple of tensors that depends on nothing else, without waiting for
            the GPU and without random numbers. It is called without gradients, and by one thread at a time.
    """
    recordings: dict[Any, Function] = {}  # in the order of their last use
    memory = _Memory()
    met, failed = set(), set()

    @functools.wraps(function)
    def call(*args: Any) -> tuple[Tensor, ...]:
        device = _recordable_on(args)
        if device is None or device in failed:
            return function(*args)
        key = _key(args)
        if key in recordings:
            recordings[key] = recordings.pop(key)
            return recordings[key](*args)
        if key not in met:
            met.add(key)  # what comes once is not worth a recording
            return function(*args)
        try:
            recordings[key] = _Recording(function, args, memory, device)
        except RuntimeError as error:  # out of memory, or a library that cannot be recorded
            failed.add(device)
            warnings.warn(
                f"{function.__module__} could not be recorded as a CUDA graph and runs kernel by kernel, which is "
                f"slower and right all the same: {error}",
                stacklevel=2,
            )
            return function(*args)
        if len(recordings) > _MOST_RECORDINGS:
            del recordings[next(iter(recordings))]
        return recordings[key](*args)

    return call


def _recordable_on(args: tuple[Any, ...]) -> torch.device | None:
    devices = {arg.device for arg in args if isinstance(arg, Tensor)}
    if len(devices) != 1 or next(iter(devices)).type != "cuda" or _off or torch.cuda.is_current_stream_capturing():
        return None
    return devices.pop()


@contextmanager
def kernel_by_kernel() -> Iterator[None]:
    """Inside the ``with`` block what is :func:`recorded` runs as it is: something larger is being recorded."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def _key(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a recording depends on: shapes, types and plain values, and the precision of products."""
    autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    signature = tuple((arg.shape, arg.dtype, arg.device) if isinstance(arg, Tensor) else arg for arg in args)
    return (*signature, autocast, float32_precision())


def float32_precision() -> str:
    """How products of float32 numbers are rounded on a GPU, in torch's words."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by torch's newer option, which this one cannot express
        return torch.backends.cuda.matmul.fp32_precision


class _Memory:
    """Room for arguments and results, which all recordings of a function share: they run one after the other."""

    def __init__(self) -> None:
        self._flat: dict[Any, Tensor] = {}

    def like(self, place: str, tensor: Tensor) -> Tensor:
        """Room for a contiguous tensor of this shape, type and device; the same for every one that goes there."""
        key = (place, tensor.dtype, tensor.device)
        flat = self._flat.get(key)
        if flat is None or flat.numel() < tensor.numel():
            # Earlier recordings keep the smaller one alive.
            room = int(_SPARE * tensor.numel())
            flat = self._flat[key] = torch.empty(room, dtype=tensor.dtype, device=tensor.device)
        return flat[: tensor.numel()].view(tensor.shape)


class _Recording:
    """A call on memory of its own: new arguments are copied there, and results copied from there."""

    def __init__(self, function: Function, args: tuple[Any, ...], memory: _Memory, device: torch.device) -> None:
        # Outside inference mode, whose tensors could not be written to in training.
        with torch.inference_mode(False), torch.no_grad():
            own = [memory.like(f"argument {i}", arg) if isinstance(arg, Tensor) else arg for i, arg in enumerate(args)]
            self._arguments = [arg for arg in own if isinstance(arg, Tensor)]
            self._copy_in(args)
            results = [memory.like(f"result {i}", result) for i, result in enumerate(function(*own))]

            def run() -> None:
                for room, result in zip(results, function(*own), strict=True):
                    room.copy_(result)

            self._results = results
            self._replay = _record(run, device)

    @torch.no_grad()
    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        self._copy_in(args)
        self._replay()
        return tuple(result.clone() for result in self._results)

    def _copy_in(self, args: tuple[Any, ...]) -> None:
        for room, arg in zip(self._arguments, (arg for arg in args if isinstance(arg, Tensor)), strict=True):
            room.copy_(arg)


def _record(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record what `run` does on a GPU, and return what does it again."""

    def without_results() -> Results:
        run()
        return ()

    ((replay, _),) = record([without_results], device, _shared(device)[1])
    return replay


def record(
    runs: Sequence[Callable[[], Results]], device: torch.device, pool: Any = None
) -> list[tuple[Callable[[], None], Results]]:
    """Record what each of `runs` does on a GPU, one after the other.

    Args:
        runs: functions that neither wait for the GPU nor draw random numbers of generators other than torch's own. All
            are called twice in this order, the second time for the recording.
        device: the GPU.
        pool: a pool of memory, of `torch.cuda.graph_pool_handle`, for what a recording needs while it runs. Recordings
            of one pool may write over each other's memory, all but the results for as long as those are held. None: a
            pool for this recording alone.

    Returns:
        For each run a function that does it again, and its results, which that function writes to where they are.

    Raises:
        RuntimeError: something in it cannot be recorded.
    """
    recordings = []
    with torch.cuda.device(device):
        stream, _ = _shared(device)
        pool = torch.cuda.graph_pool_handle() if pool is None else pool
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for run in runs:
                run()  # libraries set themselves up at their first call on a stream, which cannot be recorded
        current.wait_stream(stream)
        # A graph keeps the address of cuBLAS's workspace. One that is made while recording lies in the graphs' own
        # memory; the one there is may be freed before the graph: Lightning does so whenever a stage begins or ends.
        torch._C._cuda_clearCublasWorkspaces()
        try:
            for run in runs:
                graph = torch.cuda.CUDAGraph()
                # Other threads, such as those that watch over other processes, may go on using the GPU.
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    results = run()
                recordings.append((graph.replay, results))
        finally:
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.set_stream(current)  # where recording fails torch stays on the other one
    return recordings


@functools.cache
def _shared(device: torch.device) -> tuple[torch.cuda.Stream, Any]:
    """A stream to record on and a pool of memory: what one recording needs only while it runs serves all others."""
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
