"""The AWD-LSTM with a mixture of softmaxes (Yang et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.models.awd_lstm import AWDLSTM
from lightning_sparse_rnn.models.dropout import locked_dropout
from lightning_sparse_rnn.models.kernels.linear import Linear
from lightning_sparse_rnn.models.kernels.mixture_loss import mixture_loss, mixture_loss_by_calls
from lightning_sparse_rnn.models.kernels.untouched import untouched
from lightning_sparse_rnn.utilities.checks import check_dropouts, check_whole

__all__ = ["AWDLSTMMoS"]

# For so many latents, packed weights were measured to multiply as fast as dense ones.
_LENT = 1024


class AWDLSTMMoS(AWDLSTM):
    """`AWDLSTM` whose output is a mixture of several softmaxes over one decoder.

    Expert k reads latentₖ = tanh(Wₖ·hidden + bₖ), of the embedding's size, and has the share πₖ = softmax(V·hidden)ₖ:

        p(token) = Σₖ πₖ·softmax(decoder·latentₖ)[token]

    The defaults are the Selfish-RNN paper's: 35 M weights on WikiText-2.

    Args:
        experts: number of softmaxes.
        dropout_latent: probability of dropping a feature of the latents, one mask for a sequence.
        options: the other arguments of `AWDLSTM` and `AWDNetwork`.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.models import AWDLSTMMoS
        >>> network = AWDLSTMMoS(vocab_size=50, embedding_size=16, hidden_size=24, last_size=20, experts=3)
        >>> hidden = network(torch.randint(50, (35, 4))).hidden
        >>> probabilities = network.log_probs(hidden[-1]).exp()  # of the next token in each of 4 columns
        >>> probabilities.shape
        torch.Size([4, 50])
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 300,
        hidden_size: int = 1150,
        *,
        last_size: int = 650,
        experts: int = 15,
        dropout_input: float = 0.55,
        dropout_between: float = 0.2,
        dropout_latent: float = 0.29,
        **options: Any,
    ) -> None:
        check_whole(experts=experts)
        check_dropouts(dropout_latent=dropout_latent)
        super().__init__(
            vocab_size,
            embedding_size,
            hidden_size,
            last_size=last_size,
            dropout_input=dropout_input,
            dropout_between=dropout_between,
            decoder_size=embedding_size,
            **options,
        )
        self.experts = experts
        self.dropout_latent = dropout_latent
        self.prior = nn.Linear(last_size, experts, bias=False)
        self.latent = nn.Linear(last_size, experts * embedding_size)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        latent, log_prior = self._experts(hidden)
        rows = latent.flatten(0, -3), log_prior.flatten(0, -2)
        targets = targets.flatten().long()
        if not _is_linear(self.decoder):
            return mixture_loss_by_calls(*rows, self.decoder, self.vocab_size, targets)
        # A decoder of packed weights lends its rows. Reading `weight` lays all of them out anew, which many rows repay.
        lend: Any = getattr(self.decoder, "some_rows", None)
        products_alone = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        lent = lend is not None and products_alone and len(rows[0]) * self.experts <= _LENT
        weight = lend() if lent else self.decoder.weight
        return mixture_loss(*rows, weight, self.decoder.bias, targets)

    def log_probs(self, hidden: Tensor) -> Tensor:
        latent, log_prior = self._experts(hidden)
        total = torch.full((), -torch.inf, device=hidden.device)
        for expert in range(self.experts):
            log_probs = F.log_softmax(self.decoder(latent[..., expert, :]), dim=-1)
            total = torch.logaddexp(total, log_prior[..., expert, None] + log_probs)
        return total

    def uses_per_token(self) -> dict[str, float]:
        """The decoder is multiplied with once for each expert."""
        return {"decoder.weight": float(self.experts)}

    def _experts(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (..., experts, embedding_size) and log π (..., experts) of `hidden` (..., features)."""
        latent = torch.tanh(self.latent(hidden))
        if latent.dim() == 3:
            latent = locked_dropout(latent, self.dropout_latent, self.training)
        log_prior = F.log_softmax(self.prior(hidden), dim=-1)
        return latent.unflatten(-1, (self.experts, -1)), log_prior


def _is_linear(decoder: nn.Module) -> bool:
    """Whether its weights say it all: a layer that somebody has replaced, hooked or patched is to be called.

    A parametrised one is linear with the weight that it shows, and so is a packed one, which lends its rows.
    """
    plain = type(decoder).forward in (Linear.forward, nn.Linear.forward) and decoder.bias is not None
    return untouched(decoder) and (plain or hasattr(decoder, "some_rows"))
