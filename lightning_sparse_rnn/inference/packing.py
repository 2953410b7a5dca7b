"""Weights that are kept as one bit per position and the values that are not zero."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.inference.build import Kernel, kernel
from lightning_sparse_rnn.inference.operators import (
    KINDS,
    packed_linear,
    packed_recurrence,
    packed_rows,
    packed_sequence,
)
from lightning_sparse_rnn.utilities.finite import check_finite

__all__ = ["SMALLEST", "Packed", "PackedRows", "pack", "sparse_enough", "worth_packing"]

# Rows that are packed together, and values that the kernel may read beyond the last one.
ROWS, SPARE = 16, 64
# Above this share of live weights a product takes longer than a dense one, measured for one vector and for twenty.
_DENSEST = 0.6
#: With fewer weights than this, a call of torch's product takes no longer, measured for layers of 32 to 700 features.
SMALLEST = 1 << 19
# With fewer rows or columns than this, laying out the vectors, or what each group of 16 rows costs, takes so long that
# dense products are faster.
_FEWEST_ROWS, _FEWEST_COLUMNS = 512, 32
# Below this density, and for so many vectors, torch's products with CSR matrices were measured to be faster.
_CSR_DENSITY, _CSR_VECTORS = 0.11, (12, 256)


class Packed(nn.Module):
    """A weight (rows, columns) in packed form, which is not to be changed.

    Rows are taken 16 at a time, the last group filled up with zeros.

    Args:
        shape: (rows, columns).
        masks: (groups, columns), int16. Bit i is set where row 16·group + i is not zero, the lowest bit first.
        values: 1-D, float32, bfloat16 or int8: the weights at set bits, group by group, in each column by column, in
            each row by row; then 64 zeros.
        scales: for int8 only, (rows,), float32: what a row's values are multiplied by.

    Raises:
        ValueError: the parts do not belong together.
    """

    masks: Tensor
    values: Tensor
    starts: Tensor
    scales: Tensor | None

    def __init__(self, shape: tuple[int, int], masks: Tensor, values: Tensor, scales: Tensor | None = None) -> None:
        super().__init__()
        rows, columns = self.shape = shape
        counts = _counts(masks, rows, columns)
        if values.dtype not in KINDS or values.shape != (sum(counts) + SPARE,):
            raise ValueError(
                f"Expected {sum(counts) + SPARE} packed values, got {tuple(values.shape)} of {values.dtype}."
            )
        if (scales is None) == (values.dtype == torch.int8) or (scales is not None and scales.shape != (rows,)):
            raise ValueError(f"Expected a scale for each of {rows} rows with int8 values, and none with others.")
        starts = torch.tensor([0, *counts[:-1]]).cumsum(0)
        for name, part in {"masks": masks, "values": values, "starts": starts, "scales": scales}.items():
            self.register_buffer(name, part)
        self._remember()

    def _remember(self) -> None:
        """Keep at hand what every call looks at: a module's own attributes take longer than a small product."""
        self.density = (len(self.values) - SPARE) / math.prod(self.shape)  # the share that is not zero
        self._parts = (self.masks, self.values, self.starts, self.scales)
        self._versions = self._present_versions()
        self._csr: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held, with those of :meth:`linear`'s CSR matrix once it is made."""
        return sum(part.nbytes for part in self.buffers()) + self.csr_bytes

    @property
    def csr_bytes(self) -> int:
        """Bytes of the CSR matrix, 0 before it is made."""
        csr = self._csr
        return 0 if csr is None else csr.values().nbytes + csr.col_indices().nbytes + csr.crow_indices().nbytes

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x·weightᵀ + bias, (..., rows), for ``x`` (..., columns) of float32 on the CPU.

        From 89 % zeros on, the first call with 12 to 256 vectors makes a CSR matrix of the weight, of 8 bytes for each
        value, which is kept. It leaves zeros out: an infinity or NaN in ``x`` then makes fewer sums NaN than in a dense
        product.

        Raises:
            ValueError: ``x`` has another number of columns.
        """
        self._check_unchanged()
        rows, columns = self.shape
        if x.size(-1) != columns:
            raise ValueError(f"Expected an input of {columns} features, got one of shape {tuple(x.shape)}.")
        flat = x.reshape(-1, columns)
        if self.density <= _CSR_DENSITY and self._by_csr(flat):
            y = torch.mm(self._csr_matrix(), flat.t()).t()
            y = y.contiguous() if bias is None else y + bias
        else:
            y = packed_linear(flat, *self._parts, bias, rows)
        return y.view(*x.shape[:-1], rows)

    def recurrence(
        self, inputs: Tensor, h: Tensor, c: Tensor | None, bias: Tensor | None, mode: int, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """As :func:`~.operators.packed_recurrence`, with this as the hidden weight."""
        self._check_unchanged()
        return packed_recurrence(inputs, h, c, *self._parts, bias, mode, reverse)

    def sequence(
        self, x: Tensor, weight: Packed, h: Tensor, c: Tensor | None, bias: Tensor | None, mode: int, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """As :func:`~.operators.packed_sequence`, with this as the hidden weight and ``weight`` as the input's."""
        self._check_unchanged()
        weight._check_unchanged()
        return packed_sequence(x, h, c, weight._parts, self._parts, bias, mode, reverse)

    def rows(self, indices: Tensor) -> Tensor:
        """Return rows of the weight, (..., columns), for ``indices`` (...).

        Raises:
            IndexError: an index is out of range.
        """
        self._check_unchanged()
        flat = indices.reshape(-1)
        return packed_rows(flat, *self._parts, *self.shape).view(*indices.shape, self.shape[1])

    def some_rows(self) -> PackedRows:
        """All rows, of which slices can be taken."""
        self._check_unchanged()
        return PackedRows(self._parts, self.shape[0])

    def dense(self) -> Tensor:
        """Return the weight with its zeros, float32; values of int8 times their scales."""
        rows, columns = self.shape
        if kernel() is not None:
            return self.rows(torch.arange(rows))
        live = _unpacked_bits(self.masks, columns)
        groups = torch.zeros(len(live), columns, ROWS)
        groups[live] = self.values[:-SPARE].float()
        dense = groups.transpose(1, 2).reshape(-1, columns)[:rows].contiguous()
        return dense if self.scales is None else dense.mul_(self.scales.unsqueeze(1))

    def extra_repr(self) -> str:
        """Shape, dtype and density, for ``print``."""
        return f"{self.shape[0]}, {self.shape[1]}, {self.values.dtype}, density={self.density:.3f}"

    def _by_csr(self, x: Tensor) -> bool:
        # In a graph a product is to be one operator, for any number of vectors.
        if torch.compiler.is_compiling() or not torch.backends.mkl.is_available():
            return False
        least, most = _CSR_VECTORS
        return least <= len(x) <= most

    def _csr_matrix(self) -> Tensor:
        if self._csr is None:
            self._csr = _csr_of(self.dense())
        return self._csr

    def _present_versions(self) -> tuple[int, int]:
        masks, values = self._parts[:2]
        # Copies and files read in inference mode are of tensors that count no changes.
        return (0, 0) if masks.is_inference() else (masks._version, values._version)

    def _check_unchanged(self) -> None:
        if not torch.compiler.is_compiling() and self._versions != self._present_versions():
            raise RuntimeError(
                "Expected packed weights as they were made, got ones changed since. Change the weights of the module "
                "that was compressed, and call `compress` again."
            )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = fn(torch.zeros(0))
        if moved.dtype != torch.float32 or moved.device.type != "cpu":
            raise RuntimeError(
                f"Expected packed weights to stay on the CPU and take float32, got {moved.dtype} on {moved.device}. "
                "Move the module that was compressed instead, or give `compress` the dtype of the values."
            )
        return self  # bits and values are what they are, whatever the dtype of the rest

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, metadata: Any, strict: bool, missing: Any, unexpected: Any,
        errors: list[str],
    ) -> None:  # fmt: skip
        errors.append(
            f"{prefix.rstrip('.')} is packed and takes no other weights: load them into the module that was compressed "
            "and call `compress` again, or read a file with `load_packed`."
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._remember()  # a copy counts its changes anew


class PackedRows:
    """Rows of a packed weight that make products by themselves; slices begin at a multiple of 16. Nothing is copied."""

    def __init__(self, parts: tuple[Tensor, Tensor, Tensor, Tensor | None], rows: int) -> None:
        self._parts, self._rows = parts, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, part: slice) -> PackedRows:
        start, stop, step = part.indices(self._rows)
        if step != 1 or start % ROWS:
            raise IndexError(f"Expected rows from a multiple of {ROWS} on, one after the other, got {part}.")
        masks, values, starts, scales = self._parts
        groups = slice(start // ROWS, -(-stop // ROWS))
        of_rows = None if scales is None else scales[start:stop]
        return PackedRows((masks[groups], values, starts[groups], of_rows), max(0, stop - start))

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x·rowsᵀ + bias, (vectors, rows), for ``x`` (vectors, columns)."""
        return packed_linear(x, *self._parts, bias, self._rows)


def sparse_enough(weight: Tensor) -> bool:
    """Whether a matrix has so many zeros that packing it saves memory."""
    return weight.numel() > 0 and torch.count_nonzero(weight).item() <= _DENSEST * weight.numel()


def worth_packing(weight: Tensor, smallest: int = SMALLEST) -> bool:
    """Whether a matrix has so many zeros, and is so large, that packing it saves memory and time.

    Args:
        smallest: how many positions it must have.
    """
    large = weight.numel() >= smallest and weight.size(0) >= _FEWEST_ROWS and weight.size(1) >= _FEWEST_COLUMNS
    return large and sparse_enough(weight)


@torch.inference_mode(False)
@torch.no_grad()
def pack(weight: Tensor, dtype: torch.dtype = torch.float32, name: str = "a weight") -> Packed:
    """Pack a weight (rows, columns) of float32 on the CPU.

    Args:
        dtype: of the values that are kept: float32 keeps them exactly, bfloat16 rounds them to the nearest, and int8
            rounds a row's to multiples of its largest magnitude / 127.
        name: of the weight, for the message.

    Raises:
        NotFiniteError: the weight has NaN or infinities.
    """
    weight = weight.detach().contiguous()
    check_finite({name: weight})
    scales = None
    if dtype == torch.int8:
        largest = weight.abs().amax(1)
        # No smaller than what floating point has all digits of: a quotient by it stays within 127.
        scales = torch.where(largest > 0, (largest / 127).clamp_min(torch.finfo().tiny), 1.0)
        weight = (weight / scales.unsqueeze(1)).round_()
    built = kernel()
    masks, values = _pack(weight) if built is None else _pack_by(built, weight)
    values = torch.cat([values.to(dtype), torch.zeros(SPARE, dtype=dtype)])
    return Packed((weight.size(0), weight.size(1)), masks, values, scales)


def _pack_by(built: Kernel, weight: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = weight.shape
    masks = torch.empty(-(-rows // ROWS), columns, dtype=torch.int16)
    values = torch.empty(int(torch.count_nonzero(weight)) + 1)
    built.pack(weight.data_ptr(), rows, columns, masks.data_ptr(), values.data_ptr())
    return masks, values[:-1]


def _pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same without a kernel."""
    rows, columns = weight.shape
    filled = F.pad(weight, (0, 0, 0, -rows % ROWS))
    by_column = filled.view(-1, ROWS, columns).transpose(1, 2).contiguous()
    live = by_column != 0
    bits = np.packbits(live.numpy(), axis=2, bitorder="little").view("<u2").astype(np.int16)
    return torch.from_numpy(bits.reshape(-1, columns)), by_column[live]


def _counts(masks: Tensor, rows: int, columns: int) -> list[int]:
    """Number of set bits in each group."""
    if masks.dtype != torch.int16 or masks.shape != (-(-rows // ROWS), columns):
        raise ValueError(f"Expected masks of {-(-rows // ROWS)} groups of {columns} columns, got {tuple(masks.shape)}.")
    of_byte = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
    counts = of_byte[masks.numpy().view(np.uint8)].sum(1, dtype=np.int64)
    result: list[int] = counts.tolist()
    return result


def _unpacked_bits(masks: Tensor, columns: int) -> Tensor:
    bytes_ = masks.numpy().astype("<i2").view(np.uint8).reshape(-1, columns, ROWS // 8)
    return torch.from_numpy(np.unpackbits(bytes_, axis=2, bitorder="little")).bool()


def _csr_of(dense: Tensor) -> Tensor:
    """A CSR matrix with indices of 32 bits, which MKL takes as they are."""
    live = dense != 0
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), live.sum(1).cumsum(0)]).int()
    with torch.sparse.check_sparse_tensor_invariants(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that CSR matrices are new to torch
        return torch.sparse_csr_tensor(starts, live.nonzero()[:, 1].int(), dense[live], dense.shape)
