"""Products with packed weights as operators of torch, so that what compiles or exports a module can carry them.

    torch.ops.lightning_sparse_rnn.packed_linear(x, masks, values, starts, scales, bias, rows)
    torch.ops.lightning_sparse_rnn.packed_rows(indices, masks, values, starts, scales, rows, columns)
    torch.ops.lightning_sparse_rnn.packed_recurrence(inputs, h, c, masks, values, starts, scales, bias, mode, reverse)

``masks``, ``values``, ``starts`` and ``scales`` are those of :class:`~.packing.Packed`. ``x`` is (vectors, columns) and
``indices`` 1-D, both on the CPU. Rows are split over ``torch.get_num_threads()`` threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse_rnn.inference.build import Kernel, kernel

__all__ = ["KINDS", "MODES", "Parts", "packed_linear", "packed_recurrence", "packed_rows", "packed_sequence", "watched"]

#: What the kernel calls the values' dtypes.
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
#: What it calls recurrences, in torch's words.
MODES = {"LSTM": 0, "GRU": 1, "RNN_TANH": 2, "RNN_RELU": 3}

#: A weight's masks, values, starts and scales.
Parts = tuple[Tensor, Tensor, Tensor, "Tensor | None"]

# Of each mode, how many features of a step's input there are for one of its output.
_GATES = (4, 3, 1, 1)
# From so many multiplications on, starting threads pays.
_WORTH_THREADS = 1 << 19

_library = torch.library.Library("lightning_sparse_rnn", "DEF")
_library.define(
    "packed_linear(Tensor x, Tensor masks, Tensor values, Tensor starts, Tensor? scales, Tensor? bias, int rows)"
    " -> Tensor"
)
_library.define(
    "packed_rows(Tensor indices, Tensor masks, Tensor values, Tensor starts, Tensor? scales, int rows, int columns)"
    " -> Tensor"
)
_library.define(
    "packed_recurrence(Tensor inputs, Tensor h, Tensor? c, Tensor masks, Tensor values, Tensor starts, Tensor? scales,"
    " Tensor? bias, int mode, bool reverse) -> (Tensor, Tensor)"
)


def _check(what: str, tensor: Tensor | None, *shape: int) -> None:
    """Refuse another shape or kind, since the kernel reads whatever it is pointed at.

    Operators do so, since compiled and exported modules come by here too.
    """
    if tensor is None or (tensor.is_cpu and tensor.dtype == torch.float32 and tensor.shape == shape):
        return
    raise ValueError(
        f"Expected {what} of torch.float32 and shape {shape} on the CPU, got {tensor.dtype} and {tuple(tensor.shape)} "
        f"on {tensor.device}."
    )


def _linear(
    x: Tensor, masks: Tensor, values: Tensor, starts: Tensor, scales: Tensor | None, bias: Tensor | None, rows: int
) -> Tensor:
    _check("an input", x, x.size(0), masks.size(1))
    _check("a bias", bias, rows)
    x, bias = x.contiguous(), bias if bias is None else bias.contiguous()
    vectors, columns = x.shape
    y = x.new_empty(vectors, rows)
    _kernel().linear(
        x.data_ptr(),
        masks.data_ptr(),
        values.data_ptr(),
        starts.data_ptr(),
        None if scales is None else scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        KINDS[values.dtype],
        vectors,
        rows,
        columns,
        torch.get_num_threads() if vectors * rows * columns >= _WORTH_THREADS else 1,
    )
    return y


def _rows(
    indices: Tensor, masks: Tensor, values: Tensor, starts: Tensor, scales: Tensor | None, rows: int, columns: int
) -> Tensor:
    # As `_check` does.
    if len(indices):
        least, most = (int(end) for end in torch.aminmax(indices))
        if least < 0 or most >= rows:
            raise IndexError(f"Expected indices from 0 to {rows - 1}, got some from {least} to {most}.")
    indices = indices.to(torch.int64).contiguous()
    out = torch.empty(len(indices), columns)
    _kernel().rows(
        indices.data_ptr(),
        masks.data_ptr(),
        values.data_ptr(),
        starts.data_ptr(),
        None if scales is None else scales.data_ptr(),
        out.data_ptr(),
        KINDS[values.dtype],
        len(indices),
        columns,
        torch.get_num_threads() if len(indices) * columns >= _WORTH_THREADS else 1,
    )
    return out


def _begin(
    x: Tensor, h: Tensor, c: Tensor | None, bias: Tensor | None, columns: int, rows: int, size: int
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Check what steps begin with; return ``x``, ``h`` and ``bias`` as the kernel reads them, outputs and a cell."""
    steps, vectors = x.size(0), x.size(1)
    _check("an input", x, steps, vectors, columns)
    _check("a state", h, vectors, size)
    _check("a cell state", c, vectors, size)
    _check("a bias", bias, rows)
    cell = x.new_empty(0) if c is None else c.clone(memory_format=torch.contiguous_format)
    bias = bias if bias is None else bias.contiguous()
    return x.contiguous(), h.contiguous(), bias, x.new_empty(steps, vectors, size), cell


def _recurrence(
    inputs: Tensor,
    h: Tensor,
    c: Tensor | None,
    masks: Tensor,
    values: Tensor,
    starts: Tensor,
    scales: Tensor | None,
    bias: Tensor | None,
    mode: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    steps, vectors, size = inputs.size(0), inputs.size(1), masks.size(1)
    rows = _GATES[mode] * size
    inputs, h, bias, outputs, cell = _begin(inputs, h, c, bias, rows, rows, size)
    _kernel().recurrence(
        inputs.data_ptr(),
        h.data_ptr(),
        None if c is None else cell.data_ptr(),
        masks.data_ptr(),
        values.data_ptr(),
        starts.data_ptr(),
        None if scales is None else scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        outputs.data_ptr(),
        mode,
        reverse,
        KINDS[values.dtype],
        steps,
        vectors,
        size,
        torch.get_num_threads() if vectors * rows * size >= _WORTH_THREADS else 1,
    )
    return outputs, cell


_library.impl("packed_linear", _linear, "CPU")
_library.impl("packed_recurrence", _recurrence, "CPU")
_library.impl("packed_rows", _rows, "CPU")


@torch.library.register_fake("lightning_sparse_rnn::packed_linear", lib=_library)
def _(
    x: Tensor, masks: Tensor, values: Tensor, starts: Tensor, scales: Tensor | None, bias: Tensor | None, rows: int
) -> Tensor:
    return x.new_empty(x.size(0), rows)


@torch.library.register_fake("lightning_sparse_rnn::packed_rows", lib=_library)
def _(
    indices: Tensor, masks: Tensor, values: Tensor, starts: Tensor, scales: Tensor | None, rows: int, columns: int
) -> Tensor:
    return indices.new_empty(indices.size(0), columns, dtype=torch.float32)


@torch.library.register_fake("lightning_sparse_rnn::packed_recurrence", lib=_library)
def _(
    inputs: Tensor,
    h: Tensor,
    c: Tensor | None,
    masks: Tensor,
    values: Tensor,
    starts: Tensor,
    scales: Tensor | None,
    bias: Tensor | None,
    mode: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    outputs = inputs.new_empty(inputs.size(0), inputs.size(1), h.size(-1))
    return outputs, inputs.new_empty(0) if c is None else torch.empty_like(c)


def packed_linear(
    x: Tensor, masks: Tensor, values: Tensor, starts: Tensor, scales: Tensor | None, bias: Tensor | None, rows: int
) -> Tensor:
    """Return x·weightᵀ + bias, (vectors, rows), for ``x`` of shape (vectors, columns)."""
    call = torch.ops.lightning_sparse_rnn.packed_linear if watched() else _linear
    result: Tensor = call(x, masks, values, starts, scales, bias, rows)
    return result


def packed_rows(
    indices: Tensor, masks: Tensor, values: Tensor, starts: Tensor, scales: Tensor | None, rows: int, columns: int
) -> Tensor:
    """Return rows of the weight, (indices, columns), in float32.

    Raises:
        IndexError: an index is out of range.
    """
    call = torch.ops.lightning_sparse_rnn.packed_rows if watched() else _rows
    result: Tensor = call(indices, masks, values, starts, scales, rows, columns)
    return result


def packed_recurrence(
    inputs: Tensor,
    h: Tensor,
    c: Tensor | None,
    masks: Tensor,
    values: Tensor,
    starts: Tensor,
    scales: Tensor | None,
    bias: Tensor | None,
    mode: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Return the outputs of all steps, (time, columns, features), and the last cell state, empty unless ``c`` is given.

    Args:
        inputs: the input's share of the gates, (time, columns, gates · features), with the biases that are added to it.
        h: the output before the first step, (columns, features).
        c: an LSTM's cell state before it, of the same shape.
        bias: what is added to the hidden weight's product, (gates · features,).
        mode: one of ``MODES``.
        reverse: begin with the last step.
    """
    call = torch.ops.lightning_sparse_rnn.packed_recurrence if watched() else _recurrence
    result: tuple[Tensor, Tensor] = call(inputs, h, c, masks, values, starts, scales, bias, mode, reverse)
    return result


def packed_sequence(
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    weight: Parts,
    hidden: Parts,
    bias: Tensor | None,
    mode: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """As :func:`packed_recurrence`, of ``x`` (time, columns, features) and the weight that it is multiplied with.

    Each step multiplies its input and the state before at once. This is no operator, so not for where torch watches.

    Args:
        weight: of the input, with values of the hidden weight's dtype.
        bias: both weights' biases, added up.
        mode: one of ``MODES``, but not a GRU's, which does more than to add the two products.
    """
    steps, vectors, columns, size = x.size(0), x.size(1), weight[0].size(1), hidden[0].size(1)
    rows = _GATES[mode] * size
    x, h, bias, outputs, cell = _begin(x, h, c, bias, columns, rows, size)
    _kernel().sequence(
        x.data_ptr(),
        h.data_ptr(),
        None if c is None else cell.data_ptr(),
        *_addresses(weight),
        *_addresses(hidden),
        None if bias is None else bias.data_ptr(),
        outputs.data_ptr(),
        mode,
        reverse,
        KINDS[hidden[1].dtype],
        steps,
        vectors,
        columns,
        size,
        torch.get_num_threads() if vectors * rows * size >= _WORTH_THREADS else 1,
    )
    return outputs, cell


def _addresses(parts: Parts) -> tuple[int | None, ...]:
    return tuple(None if part is None else part.data_ptr() for part in parts)


def watched() -> bool:
    """Whether torch is to see an operator: it compiles, exports, traces or transforms what runs.

    Otherwise the kernel is called at once, since on its way through torch's registry a call takes as long as the
    product of a layer of 200 features.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


def _kernel() -> Kernel:
    built = kernel()
    if built is None:
        raise RuntimeError(
            "Expected the kernel for packed weights, which cannot be built here. Call `load_packed` or `compress` on "
            "this machine: where there is no kernel they give a dense module."
        )
    return built
