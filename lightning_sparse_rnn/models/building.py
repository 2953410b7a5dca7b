"""What a file from elsewhere may have built: the networks of this package, and optimizers, from plain values.

A checkpoint and a run's config name classes by import path. Here such a name is looked up in tables of classes, as it
is written, and never imported: a name that is in no table is refused, whatever it would lead to.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from lightning_sparse_rnn import models
from lightning_sparse_rnn.checkpoints.fits import check_fits
from lightning_sparse_rnn.optim.sntasgd import SNTASGD
from lightning_sparse_rnn.utilities.plain_values import check_plain

__all__ = ["NETWORKS", "OPTIMIZERS", "SCHEDULERS", "check_named", "check_options", "check_sizes", "rebuilt"]

_Model = TypeVar("_Model", bound=nn.Module)


def _names(*classes: type, public: str) -> dict[str, type]:
    """Every name under which a class may stand in a file: the public one, and where it is defined."""
    return {
        name: each for each in classes for name in (f"{public}.{each.__name__}", f"{each.__module__}.{each.__name__}")
    }


def _subclasses(module: Any, of: type) -> list[type]:
    return [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, of)]


#: Classes by the names that files have for them.
NETWORKS = _names(*models.NETWORKS, public="lightning_sparse_rnn.models")
OPTIMIZERS = {
    **_names(*_subclasses(optim, optim.Optimizer), public="torch.optim"),
    **_names(SNTASGD, public="lightning_sparse_rnn"),
    **_names(SNTASGD, public="lightning_sparse_rnn.optim"),
}
SCHEDULERS = _names(
    *_subclasses(lr_scheduler, lr_scheduler.LRScheduler),
    lr_scheduler.ReduceLROnPlateau,
    public="torch.optim.lr_scheduler",
)
# Arguments of a language model that are numbers; a network's all are.
_NUMBERS = ("vocab_size", "ar", "tar", "lr_bptt")
# Arguments that say how many modules a network has; each takes time to make, even without memory.
_COUNTS = ("num_layers", "depth")
# A checkpoint in bfloat16 may be read into a network of float64.
_WIDENED = 4


def check_named(where: str, config: Any, known: Mapping[str, Any]) -> None:
    """Make sure that a dict from a file names one of the ``known`` classes, and has plain arguments for it.

    Args:
        where: the dict's dotted name, for the message.
        config: a dict with a ``_target_``, as Hydra's ``instantiate`` takes it.
        known: what it may name.

    Raises:
        ValueError: it names something else, or an argument is not plain; the message says what to do.
    """
    if not isinstance(config, Mapping) or "_target_" not in config:
        raise ValueError(f"Expected `{where}` as a dict with a `_target_`, got {config!r}.")
    target = config["_target_"]
    if type(target) is not str or target not in known:
        raise ValueError(
            f"The file has {target!r} as its `{where}`, which is none of this package's own, and making it could run "
            "any code. If you trust whoever made the file, pass trusted=True, or --trust on the command line; or, in "
            f"Python, pass your own `{where}`."
        )
    check_plain(where, {name: value for name, value in config.items() if name != "_target_"})


def check_options(options: Mapping[str, Any]) -> None:
    """Make sure that a language model's arguments, as a file has them, are plain values and classes known here.

    Raises:
        ValueError: one is not; see :func:`check_named`.
    """
    for name, value in options.items():
        if value is None:
            continue
        if name == "network":
            check_named(name, value, NETWORKS)
            for key, each in value.items():
                if key != "_target_":
                    _check_number(f"{name}.{key}", each)
        elif name == "optimizer":
            check_named(name, value, OPTIMIZERS)
        elif name == "scheduler":
            inside = isinstance(value, Mapping) and "scheduler" in value
            check_named(name, value["scheduler"] if inside else value, SCHEDULERS)
            check_plain(name, {key: each for key, each in value.items() if key != "scheduler"} if inside else None)
        elif name in _NUMBERS:
            _check_number(name, value)
        else:
            check_plain(name, value)


def check_sizes(network: Mapping[str, Any], vocab_size: int | None, state_dict: Mapping[str, Any]) -> None:
    """Make sure that a network is of the shapes of a checkpoint's weights, before memory is taken for it.

    Args:
        network: a dict that :func:`check_options` has passed.
        vocab_size: number of distinct tokens.
        state_dict: weights of a language model, the network's by names that begin with ``network.``.

    Raises:
        ValueError: shapes differ, an argument is out of range, or the weights claim to be larger than they are.
    """
    prefix = "network."
    saved = {name[len(prefix) :]: each for name, each in state_dict.items() if name.startswith(prefix)}
    for name in _COUNTS:
        if network.get(name) is not None and network[name] > len(saved):
            raise ValueError(f"The network has {name}={network[name]}, the checkpoint weights of {len(saved)} tensors.")
    arguments = {name: value for name, value in network.items() if name != "_target_"}
    try:
        with torch.device("meta"):
            built = NETWORKS[network["_target_"]](vocab_size=vocab_size, **arguments)
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes past what integers hold; arguments unknown here
        raise ValueError(f"The network cannot be made as the file has it: {error}") from error
    check_fits({"state_dict": saved}, built)
    # A tensor in a file may claim more entries than it has bytes, by strides of zero.
    there = sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in saved.values())}.values())
    needed = sum(parameter.numel() * parameter.element_size() for parameter in built.parameters())
    if needed > _WIDENED * there:
        raise ValueError(f"The network takes {needed:,} bytes, and the checkpoint's weights have {there:,}.")


def rebuilt(
    cls: type[_Model], saved: Mapping[str, Any], given: Mapping[str, Any], *, trusted: bool, strict: bool | None = None
) -> _Model:
    """Return the language model of a checkpoint, made by its hyperparameters and with its weights.

    Args:
        cls: the class to make, ``LanguageModel`` or one derived from it.
        saved: the checkpoint, as read.
        given: arguments that take the place of the checkpoint's.
        trusted: make whatever the checkpoint names.
        strict: whether all weights must be there and no others; ``None``: as the model says.

    Raises:
        ValueError: the checkpoint is of another module, names what is not known here, or has other sizes than its
            weights.
    """
    own = {name: value for name, value in saved.get("hyper_parameters", {}).items() if name not in given}
    if not trusted:
        check_options(own)
        if own.get("network") is not None:
            check_sizes(own["network"], saved["hyper_parameters"].get("vocab_size"), saved["state_dict"])
    takes = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        own = {name: value for name, value in own.items() if name in takes}
    model: Any = cls(**{"network": None, **own, **given} if "network" in takes else {**own, **given})
    strict = model.strict_loading if strict is None else strict
    model.on_load_checkpoint(saved)
    missing, unexpected = model.load_state_dict(saved["state_dict"], strict=strict)
    _warn_of_keys("in the model state dict but not in the checkpoint", missing)
    _warn_of_keys("in the checkpoint but not in the model state dict", unexpected)
    tensors = (value for value in saved["state_dict"].values() if isinstance(value, Tensor))
    result: _Model = model.to(next(tensors, torch.zeros(0)).device)
    return result


def _check_number(where: str, value: Any) -> None:
    if not (value is None or type(value) in (bool, int, float)):
        raise ValueError(f"Expected `{where}` of a file to be a number, got {value!r}.")


def _warn_of_keys(where: str, names: list[str]) -> None:
    if names:
        rank_zero_warn(f"Found keys that are {where}: {names}")
