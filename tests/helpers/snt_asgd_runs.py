"""A small model under SNT-ASGD, which acts out scripts of what may happen in training."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.sparsity import SparseTopology

SCOPES = ["none", "gates", "layer", "model"]


STEPS = ["step", "step", "step", "some_gradients", "closure"]


OTHERS = ["update", "masks", "show", "begin", "schedule", "add_group", "no_masks"]


scripts = st.lists(st.sampled_from([*STEPS, *OTHERS]), min_size=5, max_size=30)


class TiedModel(nn.Module):
    """A tied embedding and decoder, a recurrent layer, biases that stay dense."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.rnn = nn.LSTM(3, 3)
        self.decoder = nn.Linear(3, 7)
        self.decoder.weight = self.embedding.weight
        self.late = nn.Parameter(torch.randn(2, 3))  # joins the optimizer after the others

    def groups(self) -> list[dict[str, Any]]:
        parameters = [p for p in self.parameters() if p is not self.late]
        return [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() == 1], "lr": 0.1, "weight_decay": 0.0},
        ]


class Run:
    """A model with its optimizer and topology, which acts out scripts of what may happen in training."""

    def __init__(
        self, *, dtype: torch.dtype = torch.float64, seed: int = 0, scope: str = "gates", **options: Any
    ) -> None:
        torch.manual_seed(seed)
        self.model = TiedModel().to(dtype)
        self.topology = SparseTopology(self.model, 0.5, redistribution=scope, exclude="late")
        self.optimizer = SNTASGD(self.model.groups(), lr=0.5, weight_decay=0.03, **options)
        self.optimizer.set_masks(self.topology.masks)
        self.noise = torch.Generator().manual_seed(seed)

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def random(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.noise, dtype=torch.float64).to(like.dtype)

    def give_gradients(self, share: float = 1.0) -> None:
        for parameter in self.parameters():
            parameter.grad = self.random(parameter)
            if float(torch.rand((), generator=self.noise)) >= share:
                parameter.grad = None

    def act(self, action: str) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]] | None:
        """Do what ``action`` says; return the masks and births that it set, if it did."""
        if action == "step":
            self.give_gradients()
            self.optimizer.step()
        elif action == "some_gradients":
            self.give_gradients(share=0.5)
            self.optimizer.step()
        elif action == "closure":
            self.optimizer.step(self.closure)
        elif action == "show":
            with self.optimizer.averaged_weights():
                pass
        elif action == "begin":
            self.optimizer.restart()
        elif action == "schedule":
            for group in self.optimizer.param_groups:
                group["lr"] *= 0.9
        elif action == "add_group":
            if len(self.optimizer.param_groups) == 2:
                self.optimizer.add_param_group({"params": [self.model.late], "lr": 0.2})
        elif action == "update":
            return self.set(self.topology.masks, self.topology.update(0.4).born)
        elif action == "masks":
            return self.set(*self.change({p: self.random(p) > 0 for p in self.topology.masks}))
        elif action == "no_masks":
            _, born = self.change({p: torch.ones_like(p, dtype=torch.bool) for p in self.topology.masks})
            return self.set({}, born)
        return None

    def change(self, live: dict[Tensor, Tensor]) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]]:
        """Make other weights live; those that were not are born, and some of those that were are born again."""
        born = {}
        for parameter, mask in self.topology.masks.items():
            born[parameter] = live[parameter] & ((mask == 0) | (self.random(parameter) > 1))
            mask.copy_(live[parameter])
            parameter.data[born[parameter]] = 0.0
        return self.topology.masks, born

    def set(
        self, masks: dict[Tensor, Tensor], born: dict[Tensor, Tensor]
    ) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]]:
        self.optimizer.set_masks(masks, born)
        return masks, born

    def closure(self) -> float:
        assert torch.is_grad_enabled()
        self.give_gradients()
        return 1.5


def comparable(run: Run) -> list[list[float]]:
    return [parameter.flatten().tolist() for parameter in run.parameters()]


def averaging_run(**options: Any) -> Run:
    run = Run(**options)
    for action in ("step", "begin", "step", "step", "update", "step"):
        run.act(action)
    return run
