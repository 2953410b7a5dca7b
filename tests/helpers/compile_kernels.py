"""Compiles every kernel of Triton's for an Ampere and a Hopper GPU, which need not be here."""

from __future__ import annotations

from itertools import product
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lightning_sparse_rnn.models import highway_kernels, ordered_kernels

TILE = {"CHUNKS": 128, "NEURONS": 16}
ON = (False, True)
CALLS = [
    *(
        (highway_kernels._forward_cell, {"GATES": g, "KEEP": k, "MASKED": m, "APART": m})
        for g in (2, 3)
        for k in ON
        for m in ON
    ),
    *((highway_kernels._backward_cell, {"GATES": g, "MASKED": m, "LAST": m}) for g in (2, 3) for m in ON),
    *((ordered_kernels._forward_cell, {**TILE, "KEEP": k}) for k in ON),
    *((ordered_kernels._backward_cell, {**TILE, "GRAD": g}) for g in ON),
]
INTEGERS = ("features", "addend_rows", "chunks", "neurons")


def compile_for(capability: int, kernel: Any, constants: dict[str, Any]) -> None:
    if "BLOCK" in kernel.arg_names:
        constants = {**constants, "BLOCK": highway_kernels._BLOCK}
    types = {name: "i32" if name in INTEGERS else "*fp32" for name in kernel.arg_names}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": True})
    assert compiled.asm["cubin"]
    print(capability, compiled.name, constants)


for capability, (kernel, constants) in product((80, 90), CALLS):
    compile_for(capability, kernel, constants)
