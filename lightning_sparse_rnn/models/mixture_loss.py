"""Loss of a mixture of softmaxes, without ever holding all of its logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["mixture_loss"]

# Logits held at a time in training: 32 MiB in float32 on a CPU, and 256 MiB elsewhere.
_LOGITS_AT_A_TIME = 2**23
_LOGITS_AT_A_TIME_ON_DEVICES = 2**26
# In evaluation, where no row has to be held whole, on a CPU as many as its cache holds: (rows, words).
_BLOCK = 2048, 1024
_BLOCK_ON_DEVICES = 2**14, 2**12


@torch.compiler.disable
def mixture_loss(latent: Tensor, log_prior: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean of −log Σₖ πₖ·softmax(weight·latentₖ + bias)[target] (Yang et al. 2018, equation 2).

    Only one number of each softmax enters the loss, the target's probability p, and the gradient of expert k's logits
    is r·(softmax − onehot) with r = πₖ·pₖ / Σⱼ πⱼ·pⱼ. A few rows at a time, the logits are computed, used for both, and
    forgotten: few are ever held, and none is computed twice. Without gradients they are summed up block by block.

    Args:
        latent: (rows, experts, features).
        log_prior: log π, (rows, experts).
        weight: (vocabulary, features).
        bias: (vocabulary,).
        targets: (rows,).

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


def _evaluate(latent: Tensor, log_prior: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    experts = latent.size(1)
    dtype = torch.promote_types(latent.dtype, torch.float32)
    rows, words = _BLOCK if latent.is_cpu else _BLOCK_ON_DEVICES
    log_expert = []
    for flat, target in zip(
        latent.flatten(0, 1).split(rows), targets.repeat_interleave(experts).unsqueeze(1).split(rows), strict=True
    ):
        total = torch.full(target.shape, -torch.inf, dtype=dtype, device=latent.device)
        chosen = torch.empty_like(total)
        for start in range(0, len(weight), words):
            block = slice(start, start + words)
            logits = F.linear(flat, weight[block]).to(dtype).add_(bias[block])
            # Not computed apart, which would round it differently from what it is a part of.
            place = target - start
            here = (place >= 0) & (place < logits.size(1))
            chosen = torch.where(here, logits.gather(1, place.clamp(0, logits.size(1) - 1)), chosen)
            largest, odds = _odds_(logits)
            total = torch.logaddexp(total, largest + odds.log())
        log_expert.append(chosen - total)
    return -torch.logsumexp(log_prior + torch.cat(log_expert).view(-1, experts), -1).mean()


def _odds_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Turn logits (rows, words) in place into exp(logit − largest); return the largest and the sums, (rows, 1)."""
    largest = logits.amax(1, keepdim=True)
    return largest, logits.sub_(largest).exp_().sum(1, keepdim=True)


class _MixtureLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, log_prior: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        rows, experts, features = latent.shape
        dtype = torch.promote_types(latent.dtype, torch.float32)
        total = torch.zeros((), dtype=dtype, device=latent.device)
        # Gradients of 33,000 words are too small for float16, before a loss scale reaches them all the more.
        product_dtype = dtype if latent.dtype == torch.float16 else latent.dtype
        product_weight = weight.to(product_dtype)
        dlatent, dprior = torch.empty_like(latent, dtype=dtype), torch.empty_like(log_prior, dtype=dtype)
        dweight, dbias = torch.zeros_like(weight, dtype=dtype), torch.zeros_like(bias, dtype=dtype)
        vocabulary = weight.size(0)
        logits_at_a_time = _LOGITS_AT_A_TIME if latent.is_cpu else _LOGITS_AT_A_TIME_ON_DEVICES
        size = max(1, logits_at_a_time // (experts * vocabulary))
        buffer = torch.empty(min(size, rows) * experts, vocabulary, dtype=dtype, device=latent.device)
        for start in range(0, rows, size):
            part = slice(start, start + size)
            flat = latent[part].reshape(-1, features)
            target = targets[part].repeat_interleave(experts).unsqueeze(1)
            logits = buffer[: len(flat)]
            if logits.dtype == flat.dtype:
                torch.addmm(bias, flat, weight.t(), out=logits)
            else:
                torch.add(bias, torch.mm(flat, weight.t()), out=logits)
            chosen = logits.gather(1, target)
            largest, total_odds = _odds_(logits)
            log_expert = (chosen - largest - total_odds.log()).view(-1, experts)
            joint = log_prior[part] + log_expert
            log_likelihood = joint.logsumexp(-1, keepdim=True)
            total -= log_likelihood.sum()
            responsibility = (joint - log_likelihood).exp().div_(rows)
            dprior[part] = -responsibility
            share = responsibility.view(-1, 1)
            dlogits = logits.mul_(share / total_odds).scatter_add_(1, target, -share).to(product_dtype)
            dlatent[part] = (dlogits @ product_weight).view(-1, experts, features)
            if product_dtype == dtype:
                dweight.addmm_(dlogits.t(), flat.to(dtype))
            else:
                dweight += dlogits.t() @ flat
            dbias += dlogits.sum(0)
        ctx.save_for_backward(dlatent, dprior, dweight, dbias)
        ctx.dtypes = latent.dtype, log_prior.dtype, weight.dtype, bias.dtype
        return total / rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*((part * grad).to(dtype) for part, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)), None)
