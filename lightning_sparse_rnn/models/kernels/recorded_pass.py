"""Whole passes of a network over a batch, forward and backward, launched as two CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sparse_rnn.models.kernels import cuda_graphs
from lightning_sparse_rnn.models.kernels.state import State, map_state

__all__ = ["Pass", "PassFunction", "RecordedPasses"]

# A run of drawn lengths comes to some sixty, in training and again in evaluation.
_MOST_RECORDINGS = 192
# Of so many passes in a row one is of a kind that there was before, or none ever will be.
_MOST_IN_A_ROW = 64


class Pass(NamedTuple):
    """What comes out of a batch.

    Attributes:
        objective: what is minimised, a scalar.
        loss: the mean loss of a token, a scalar, detached.
        state: the network's memory after the batch, detached.
    """

    objective: Tensor
    loss: Tensor
    state: State


#: From tokens and targets, (time, columns) each, and the state before them to what comes out.
PassFunction = Callable[[Tensor, Tensor, State], Pass]


class RecordedPasses:
    """Passes that are recorded when their shapes come for the first time, and replayed from then on.

    The first pass of a shape is a replay like all others, so a run that is resumed, and records at another moment than
    the run that was not interrupted, computes the same numbers. Random numbers are torch's own: a recording leaves
    their state as it was, and each replay draws anew and moves the state on, as the pass itself would.

    Gradients live in fixed memory. The backward graph of the first recording writes straight to it, and ``.grad`` of
    each parameter is that memory, not a copy; recordings of other shapes copy theirs there. A parameter whose ``.grad``
    is not None has the new gradient added, as in torch.

    All recordings share the memory for what a pass needs on its way. So of two passes only the later one's objective
    can be differentiated, once.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._recordings: dict[Any, _Recording] = {}  # in the order of their last use
        self._gradients: dict[Tensor, Tensor] = {}
        self._zeros: dict[Any, State] = {}
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        self._addresses: tuple[int, ...] = ()
        self._latest: object = None
        self._in_a_row = 0

    def __call__(
        self,
        function: PassFunction,
        weights: Sequence[Tensor],
        made_of: tuple[Any, ...],
        tokens: Tensor,
        targets: Tensor,
        state: State,
    ) -> Pass:
        """``function(tokens, targets, state)``; with gradients enabled its objective can be differentiated.

        Args:
            function: depends on its arguments, ``weights`` and ``made_of``, and on nothing else.
            weights: parameters and buffers.
            made_of: hashable.
            tokens: (time, columns).
            targets: (time, columns).
            state: the state before the batch; None: zeros.

        Raises:
            RuntimeError: the pass cannot be recorded.
        """
        addresses = tuple(weight.data_ptr() for weight in weights)
        if addresses != self._addresses:  # the module has been moved
            self._recordings, self._gradients, self._addresses = {}, {}, addresses
        parameters = [weight for weight in weights if weight.requires_grad] if torch.is_grad_enabled() else []
        key = (made_of, tuple(map(id, parameters)), *_settings(self._device))
        if state is None:
            state = self._zero_state(key, function, tokens, targets)
        inputs = [tokens, targets, *_parts(state)]
        key = (key, tuple((part.shape, part.dtype) for part in inputs))
        recording = self._recordings.pop(key, None)
        self._in_a_row = 0 if recording else self._in_a_row + 1
        if self._in_a_row > _MOST_IN_A_ROW:
            raise RuntimeError(f"none of {_MOST_IN_A_ROW} batches was like another, or the network counts them")
        if recording is None:
            recording = _Recording(function, inputs, state, parameters, self._gradients, self._device, self._pool)
        self._recordings[key] = recording
        if len(self._recordings) > _MOST_RECORDINGS:
            del self._recordings[next(iter(self._recordings))]
        objective, loss, *ends = recording.forward(inputs)
        self._latest = ticket = object()
        if parameters:
            objective = _Replayed.apply(self._anchor, objective, self, recording, ticket)
        return Pass(objective, loss, _like(state, ends))

    def backward(self, recording: _Recording, ticket: object, grad: Tensor) -> None:
        """Differentiate the objective of the latest pass."""
        if self._latest is not ticket:
            raise RuntimeError(
                "Expected to differentiate the objective of the latest training step, once, as its CUDA graphs can: "
                "another pass has written over what this one needs, or it was differentiated before. Make the "
                "LanguageModel with `cuda_graphs=False`."
            )
        self._latest = None
        recording.backward(grad)

    def _zero_state(self, key: Any, function: PassFunction, tokens: Tensor, targets: Tensor) -> State:
        """A state of zeros, of the kind that the network itself returns."""
        key = (key, tokens.size(1))
        if key not in self._zeros:
            with _apart(self._device), torch.no_grad():
                end = function(tokens[:1], targets[:1], None).state
            self._zeros[key] = map_state(torch.zeros_like, end)
        return self._zeros[key]


class _Replayed(torch.autograd.Function):
    """The objective of a replay: its gradient is another replay."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, objective: Tensor, passes: RecordedPasses, recording: _Recording, ticket: object
    ) -> Tensor:
        ctx.found = passes, recording, ticket
        return objective.view_as(objective)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        passes, recording, ticket = ctx.found
        passes.backward(recording, ticket, grad)
        return (None,) * 5


class _Recording:
    """A pass on memory of its own: its inputs are copied there, and its results copied from there."""

    def __init__(
        self,
        function: PassFunction,
        inputs: Sequence[Tensor],
        state: State,
        parameters: Sequence[Tensor],
        gradients: dict[Tensor, Tensor],
        device: torch.device,
        pool: Any,
    ) -> None:
        """``gradients`` is where gradients go, by parameter; those that have no place yet are given one."""
        with torch.inference_mode(False), torch.no_grad():  # outside inference mode, for training writes here too
            self._inputs = [part.clone(memory_format=torch.contiguous_format) for part in inputs]
            tokens, targets, *parts = self._inputs
            own_state = _like(state, parts)
            objectives: list[Tensor] = []
            incoming: list[Tensor] = []

            def forward() -> tuple[Tensor, ...]:
                with torch.set_grad_enabled(bool(parameters)):
                    found = function(tokens, targets, own_state)
                if not incoming:
                    incoming.append(torch.ones_like(found.objective))
                objectives[:] = [found.objective] if parameters else []
                return (found.objective.detach(), found.loss.detach(), *map(Tensor.detach, _parts(found.state)))

            def backward() -> tuple[Tensor | None, ...]:
                with torch.autocast(device.type, enabled=False):  # as a Trainer does: it is on in `training_step` alone
                    found = torch.autograd.grad(objectives.pop(), parameters, incoming, allow_unused=True)
                return _put(found, parameters, gradients, incoming[0])

            with _apart(device):
                runs = [forward, backward] if parameters else [forward]
                recordings = cuda_graphs.record(runs, device, pool)
        self._incoming = incoming[0]
        self._forward, self._results = recordings[0]
        self._gradients: list[tuple[Tensor, Tensor]] = []
        if parameters:
            self._backward, found = recordings[1]
            self._gradients = [
                (parameter, new) for parameter, new in zip(parameters, found, strict=True) if new is not None
            ]
            gradients.update(self._gradients)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode(False), torch.no_grad():
            torch._foreach_copy_(self._inputs, list(inputs))
            self._forward()
            # The caller's own: what is carried from batch to batch is kept for when a batch is broken off.
            return tuple(result.clone() for result in self._results if result is not None)

    @torch.no_grad()
    def backward(self, grad: Tensor) -> None:
        self._incoming.copy_(grad)
        # What was accumulated there before, the new gradient is to be added to.
        before = [new.clone() if _shares(parameter.grad, new) else None for parameter, new in self._gradients]
        self._backward()
        for (parameter, new), old in zip(self._gradients, before, strict=True):
            if parameter.grad is None:
                parameter.grad = new
            elif old is not None:
                new.add_(old)
            else:
                parameter.grad.add_(new)


def _put(
    found: Sequence[Tensor | None], parameters: Sequence[Tensor], places: dict[Tensor, Tensor], incoming: Tensor
) -> tuple[Tensor | None, ...]:
    """Put each gradient where that of its parameter goes, or leave it where it is, if that is its own memory."""
    taken = {incoming.untyped_storage().data_ptr()}
    results: list[Tensor | None] = []
    copies: list[tuple[Tensor, Tensor]] = []
    for parameter, new in zip(parameters, found, strict=True):
        if new is not None and parameter in places:
            copies.append((places[parameter], new))
            results.append(places[parameter])
            continue
        if new is not None:
            # Two biases that are added up have one gradient, and what is expanded has less memory than elements.
            memory = new.untyped_storage().data_ptr()
            if memory in taken or new.stride() != parameter.stride():
                new = torch.empty_like(parameter).copy_(new)
            taken.add(memory)
        results.append(new)
    if copies:
        torch._foreach_copy_([place for place, _ in copies], [new for _, new in copies])
    return tuple(results)


def _settings(device: torch.device) -> tuple[Any, ...]:
    """What torch's arithmetic depends on, beside its arguments."""
    kind = device.type
    return (
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        cuda_graphs.float32_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
    )


@contextmanager
def _apart(device: torch.device) -> Iterator[None]:
    """Inside, what is computed leaves no trace: random state, recordings of parts, copies that autocast keeps."""
    kind = device.type
    # A copy of a weight that autocast made before the recording would be the same in every replay.
    without_copies = torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    own_draws = torch.random.fork_rng([device] if kind == "cuda" else [])
    with own_draws, cuda_graphs.kernel_by_kernel(), without_copies:
        yield


def _shares(gradient: Tensor | None, memory: Tensor) -> bool:
    return gradient is not None and gradient.data_ptr() == memory.data_ptr()


def _parts(state: State) -> list[Tensor]:
    """The tensors of a state, in order."""
    parts: list[Tensor] = []
    map_state(lambda part: parts.append(part) or part, state)  # type: ignore[func-returns-value]
    return parts


def _like(state: State, parts: Sequence[Tensor]) -> State:
    """A state of these tensors, nested as ``state`` is."""
    following = iter(parts)
    return map_state(lambda part: next(following), state)
