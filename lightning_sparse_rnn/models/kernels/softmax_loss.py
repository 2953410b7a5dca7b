"""Loss of a softmax over many words on a CPU: its gradients are made while its logits are at hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sparse_rnn.models.kernels.linear import by_onednn, linear

__all__ = ["IGNORED", "counts", "cross_entropy", "softmax_loss"]

# Targets of this value count for nothing, as in torch.
IGNORED = -100
# So many logits do not stay in a CPU's cache between passes; with fewer there is nothing to gain.
_MANY = 2**20


def counts(targets: Tensor) -> Tensor:
    """Return which targets a loss is the mean over: all but those that are ignored. Of the shape of ``targets``."""
    return targets.long() != IGNORED  # compared as a byte, 156 would be -100


def softmax_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean of −log softmax(weight·hidden + bias)[target], in nats per row.

    The gradient of a row's logits is softmax − onehot. Made at once, and in the memory of the log-probabilities, it
    spares two passes over arrays of the vocabulary's size and the fresh memory for them, which on a CPU cost as much as
    the products do. With few logits, elsewhere, and in other precisions than float32, the loss is torch's.

    Args:
        hidden: (rows, features).
        weight: (vocabulary, features).
        bias: (vocabulary,).
        targets: (rows,); rows whose target is -100 count for nothing.

    Returns:
        A scalar, float32 at least.
    """
    # How many there are is asked last: a compiler that asks would be bound to the sizes that it has seen.
    here = by_onednn(hidden, weight, bias) and not torch.is_autocast_enabled("cpu")
    if here and len(hidden) * len(weight) >= _MANY:
        result: Tensor = _SoftmaxLoss.apply(hidden, weight, bias, targets)
        return result
    return cross_entropy(linear(hidden, weight, bias), targets)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """In float32 at least: in bfloat16 a sum over many tokens would be rounded to three digits."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(dtype), targets, reduction=reduction, ignore_index=IGNORED)


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        to_hidden, to_weight, to_bias, _ = ctx.needs_input_grad
        logits = linear(hidden, weight, bias)
        log_probs = F.log_softmax(logits, -1)
        loss = F.nll_loss(log_probs, targets, ignore_index=IGNORED)
        targets = targets.long()  # of bytes torch makes these itself
        errors = torch.softmax(logits, -1, out=log_probs)
        ignored = targets == IGNORED
        errors.scatter_add_(1, *_minus_onehot(errors, targets, ignored))
        if ignored.any():
            errors[ignored] = 0.0
        ctx.save_for_backward(
            hidden,
            weight,
            bias,
            targets,
            linear(errors, weight.t()) if to_hidden else None,
            linear(hidden.t(), errors.t()) if to_weight else None,
            errors.sum(0) if to_bias else None,
        )
        ctx.rows = max(1, len(targets) - int(ignored.sum()))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, to_hidden, to_weight, to_bias = ctx.saved_tensors
        scale = grad / ctx.rows
        if torch.is_grad_enabled():  # the gradients that were kept know nothing of what they depend on
            ignored = targets == IGNORED
            probs = torch.softmax(linear(hidden, weight, bias), -1)
            errors = probs.scatter_add(1, *_minus_onehot(probs, targets, ignored))
            errors = errors.masked_fill(ignored.unsqueeze(1), 0.0) * scale
            return (
                None if to_hidden is None else linear(errors, weight.t()),
                None if to_weight is None else linear(errors.t(), hidden.t()),
                None if to_bias is None else errors.sum(0),
                None,
            )
        return (
            None if to_hidden is None else to_hidden * scale,
            None if to_weight is None else torch.mul(to_weight.t(), scale, out=torch.empty_like(weight)),
            None if to_bias is None else to_bias * scale,
            None,
        )


def _minus_onehot(probs: Tensor, targets: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row's target is, (rows, 1), and the −1 that is to be added there; what is ignored counts as word 0."""
    return targets.masked_fill(ignored, 0).unsqueeze(1), probs.new_full((len(targets), 1), -1.0)
