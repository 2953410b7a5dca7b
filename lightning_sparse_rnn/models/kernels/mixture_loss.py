"""Loss of a mixture of softmaxes, without ever holding all of its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sparse_rnn.models.kernels.linear import linear
from lightning_sparse_rnn.models.kernels.rows import rows_at_a_time
from lightning_sparse_rnn.models.kernels.softmax_loss import IGNORED, cross_entropy

__all__ = ["mixture_loss", "mixture_loss_by_calls"]

# Logits held at a time in evaluation on a CPU, whose cache holds so many: (rows, words).
_BLOCK = 2048, 1024


@torch.compiler.disable
def mixture_loss(latent: Tensor, log_prior: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean of −log Σₖ πₖ·softmax(weight·latentₖ + bias)[target] (Yang et al. 2018, equation 2).

    Only one number of each softmax enters the loss, the target's probability p, and the gradient of expert k's logits
    is r·(softmax − onehot) with r = πₖ·pₖ / Σⱼ πⱼ·pⱼ. A few rows at a time, the logits are computed, used for both, and
    forgotten: few are ever held, and none is computed twice.

    Args:
        latent: (rows, experts, features).
        log_prior: log π, (rows, experts).
        weight: (vocabulary, features). Without gradients, and where no autocast is on, also what has a length, slices
            and a method ``linear(x, bias)``, as rows of packed weights have.
        bias: (vocabulary,).
        targets: (rows,), int64; rows whose target is -100 count for nothing.

    Returns:
        A scalar, in nats per row, float32 at least. Under autocast the products are made in its precision.
    """
    device = latent.device.type
    if torch.is_autocast_enabled(device) and latent.dtype != torch.float64:
        latent, weight = (part.to(torch.get_autocast_dtype(device)) for part in (latent, weight))
    with torch.autocast(device, enabled=False):  # from here on everything says its precision
        if torch.is_grad_enabled():
            return _MixtureLoss.apply(latent, log_prior, weight, bias, targets)
        return _evaluate(latent, log_prior, weight, bias, targets)


def mixture_loss_by_calls(
    latent: Tensor, log_prior: Tensor, decoder: Callable[[Tensor], Tensor], words: int, targets: Tensor
) -> Tensor:
    """The same with a decoder that is called, once for each expert, and says for itself how `words` get their logits.

    While training, the logits of all experts are held.
    """
    rows = len(latent) if torch.is_grad_enabled() else rows_at_a_time(latent, words)
    found = [
        torch.logsumexp(prior - torch.stack([cross_entropy(decoder(x), target, "none") for x in part.unbind(1)], 1), 1)
        for part, prior, target in zip(latent.split(rows), log_prior.split(rows), targets.split(rows), strict=True)
    ]
    return _mean(torch.cat(found), targets)


def _mean(log_likelihood: Tensor, targets: Tensor) -> Tensor:
    """The mean of −log-likelihoods over the rows that count."""
    mean = -log_likelihood.masked_fill(targets == IGNORED, 0.0).mean()
    return mean * _of_counted(targets, mean.dtype)


def _of_counted(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """What makes a mean over all rows one over those that count: exactly 1 if all do, and infinite if none does."""
    counted = (targets != IGNORED).sum().to(dtype)
    return torch.full_like(counted, len(targets)) / counted  # a number over a tensor would be rounded twice


def _evaluate(latent: Tensor, log_prior: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    experts = latent.size(1)
    flat, target = latent.flatten(0, 1), targets.repeat_interleave(experts)
    rows, of_some = (_BLOCK[0], _in_blocks) if flat.is_cpu else (rows_at_a_time(flat, len(weight)), _in_rows)
    pairs = zip(flat.split(rows), target.split(rows), strict=True)
    log_expert = torch.cat([of_some(part, of_part, weight, bias) for part, of_part in pairs])
    return _mean(torch.logsumexp(log_prior + log_expert.view(-1, experts), -1), targets)


def _in_rows(flat: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """log softmax(weight·flat + bias)[target] of every row, in the fewest kernels of a GPU."""
    return -F.cross_entropy(_logits(flat, weight, bias), target, reduction="none")


def _in_blocks(flat: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same, of logits that fit into a CPU's cache."""
    target = target.masked_fill(target == IGNORED, 0)
    dtype = torch.promote_types(flat.dtype, torch.float32)
    chosen = flat.new_zeros(1, dtype=dtype).expand(len(weight)).gather(0, target)  # which raises where one is no word
    target, chosen = target.unsqueeze(1), chosen.unsqueeze(1)
    total = torch.full_like(chosen, -torch.inf)
    for start in range(0, len(weight), _BLOCK[1]):
        block = slice(start, start + _BLOCK[1])
        logits = _logits(flat, weight[block], bias[block])
        # Not computed apart, which would round it differently from what it is a part of.
        place = target - start
        here = (place >= 0) & (place < logits.size(1))
        chosen = torch.where(here, logits.gather(1, place.clamp(0, logits.size(1) - 1)), chosen)
        # Of the logarithm of the sum, which torch computes by a slow exponential, this is the largest logit's share.
        of_block = logits.amax(1, keepdim=True) - F.log_softmax(logits, 1).amax(1, keepdim=True)
        total = torch.logaddexp(total, of_block)
    return (chosen - total).squeeze(1)


def _logits(flat: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The product in its operands' precision, and the sum with the bias in float32 at least."""
    if not isinstance(weight, Tensor):
        return weight.linear(flat, bias)
    dtype = torch.promote_types(flat.dtype, torch.float32)
    return linear(flat, weight, bias) if flat.dtype == dtype else linear(flat, weight).to(dtype).add_(bias)


class _MixtureLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, log_prior: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        rows, experts, _ = latent.shape
        dtype = torch.promote_types(latent.dtype, torch.float32)
        total = torch.zeros((), dtype=dtype, device=latent.device)
        dlatent, dprior = torch.empty_like(latent, dtype=dtype), torch.empty_like(log_prior, dtype=dtype)
        dweight, dbias = torch.zeros_like(weight, dtype=dtype), torch.zeros_like(bias, dtype=dtype)
        size = rows_at_a_time(latent, experts * len(weight))
        for start in range(0, rows, size):
            part = slice(start, start + size)
            loss, dlatent[part], dprior[part], to_weight, to_bias = _loss_and_gradients(
                latent[part], log_prior[part], weight, bias, targets[part]
            )
            total += loss
            dweight += to_weight
            dbias += to_bias
        gradients = [gradient.div_(rows) for gradient in (dlatent, dprior, dweight, dbias)]
        of_counted = _of_counted(targets, dtype)
        ctx.save_for_backward(of_counted.clamp(max=rows), *gradients)  # finite, since no gradient is zero, and not NaN
        ctx.dtypes = latent.dtype, log_prior.dtype, weight.dtype, bias.dtype
        return total / rows * of_counted

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # the gradients that were kept know nothing of what they depend on
            raise RuntimeError(
                "The loss of a mixture of softmaxes has no second derivatives: leave create_graph=False."
            )
        of_counted, *gradients = ctx.saved_tensors
        grad = grad * of_counted
        return (*((part * grad).to(dtype) for part, dtype in zip(gradients, ctx.dtypes, strict=True)), None)


def _loss_and_gradients(
    latent: Tensor, log_prior: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
) -> tuple[Tensor, ...]:
    """Return the sum over some rows of −log Σₖ πₖ·pₖ, and its gradients by latent, log π, weight and bias."""
    experts, dtype = latent.size(1), torch.promote_types(latent.dtype, torch.float32)
    ignored = (targets == IGNORED).unsqueeze(1)
    flat, target = latent.flatten(0, 1), targets.unsqueeze(1).masked_fill(ignored, 0).repeat_interleave(experts, 0)
    logits = _logits(flat, weight, bias)
    log_probs = F.log_softmax(logits, 1)
    log_expert = log_probs.gather(1, target).view(-1, experts)
    probs = torch.softmax(logits, 1, out=log_probs)
    joint = log_prior + log_expert
    log_likelihood = joint.logsumexp(-1, keepdim=True)
    responsibility = (joint - log_likelihood).exp().masked_fill_(ignored, 0.0)
    share = responsibility.view(-1, 1)
    # Gradients of 33,000 words are too small for float16, before a loss scale reaches them all the more.
    product_dtype = dtype if latent.dtype == torch.float16 else latent.dtype
    dlogits = probs.mul_(share).scatter_add_(1, target, -share).to(product_dtype)
    dlatent = linear(dlogits, weight.to(product_dtype).t()).view_as(latent)
    return (
        -log_likelihood.masked_fill_(ignored, 0.0).sum(),
        dlatent,
        -responsibility,
        linear(dlogits.t(), flat.to(product_dtype).t()),
        dlogits.sum(0),
    )
