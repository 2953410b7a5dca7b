"""What Triton's kernels of several networks are made of."""

import triton
import triton.language as tl

__all__ = ["load_sum", "sigmoid", "store_scaled", "tanh"]


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def tanh(x):
    return 2 * sigmoid(2 * x) - 1


@triton.jit
def load_sum(one, other, there, otherwise):
    """The sum of what two pointers point to, in float32; twice `otherwise` where nothing is there."""
    return tl.load(one, there, otherwise).to(tl.float32) + tl.load(other, there, otherwise).to(tl.float32)


@triton.jit
def store_scaled(at, value, scale, there):
    """Store ``value`` times ``scale``, no larger than float16 can hold; what is no number stays none."""
    value *= scale
    value = tl.where(value > 65504.0, 65504.0, value)
    tl.store(at, tl.where(value < -65504.0, -65504.0, value), there)
