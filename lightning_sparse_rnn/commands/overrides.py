"""What the command line of ``sparse-rnn-train`` changes, looked at before anything is made."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # Hydra has no public way to tell options from overrides
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.config_checks import near
from lightning_sparse_rnn.runs.flat_config import flat
from lightning_sparse_rnn.runs.old_configs import MOVED

__all__ = ["output_of"]

_DEFAULT = Path("runs")
_GROUPS = ("data", "model", "method", "optimizer", "experiment", "sweep", "trainer", "callbacks", "logger")


def output_of(arguments: Sequence[str]) -> Path:
    """Return the folder of runs that the command line names, and make sure that Hydra can take all of the line.

    Raises:
        ValueError: it cannot; the message names what is near, or what there is to choose from.
    """
    given = get_args_parser().parse_args(list(arguments))
    if given.config_path or given.config_name or given.config_dir or given.help or given.hydra_help:
        return _DEFAULT  # other configs than ours are Hydra's to judge
    try:
        overrides = OverridesParser.create().parse_overrides(given.overrides)
    except OverrideParseException as error:
        raise ValueError(f"Expected options like key=value, got {error.override}: {_first_line(error)}") from None
    for override in overrides:
        _refuse_moved(override)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            config = compose("train", [line for override in overrides if (line := _single(override))])
        except HydraException as error:
            raise _plain(error) from None
    output = str(OmegaConf.to_container(config)["output"])  # type: ignore[index, call-overload]
    return _DEFAULT if "${" in output else _writable(Path(output))


def _writable(folder: Path) -> Path:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"Cannot write to output={folder}: {there} is not a folder that this user may write to.")
    return folder


def _single(override: Override) -> str:
    """Return the override, and of a sweep over listed values the first of them; nothing of any other sweep."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return line
    if override.value_type in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP):
        return f"{line.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"
    return ""


def _refuse_moved(override: Override) -> None:
    name = override.key_or_group
    for old, new in MOVED.items():
        if name == old or name.startswith(f"{old}."):
            now = f"{new}{name.removeprefix(old)}"
            hint = ", as shares of trainer.max_epochs: [0.667] for two thirds" if now.endswith("restart_at") else ""
            raise ValueError(f"{name} is now {now}{hint}.")


def _plain(error: Exception) -> Exception:
    """Return Hydra's error in our words: what was given, what is near, and last what there is to choose from."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if option != "base"]
        return ValueError(f"There is no {group}={name}.{near(name, options)} Known: {', '.join(options)}.")
    found = re.search(r"Could not (?:override|delete)[^']*'([^'=@]+)", str(error))
    return ValueError(_first_line(error) if found is None else _unknown(found.group(1)))


def _unknown(key: str) -> str:
    """Say that there is no ``key`` in the config."""
    parent, dot, last = key.rpartition(".")
    values = _values()
    siblings = sorted(
        {name.removeprefix(parent + dot).partition(".")[0] for name in values if name.startswith(parent + dot)}
    )
    elsewhere = [name for name in values if name.rpartition(".")[2] == last]
    meant = near(last, siblings) or (f" Did you mean {' or '.join(elsewhere[:2])}?" if elsewhere else "")
    if not siblings:
        return f"There is no {key}.{meant}"
    if not parent:
        groups = [name for name in _GROUPS if name in siblings or name in ("experiment", "sweep")]
        others = [name for name in siblings if name not in (*groups, "chosen")]
        return f"There is no {key}.{meant} Groups: {', '.join(groups)}. Values: {', '.join(others)}."
    add = "" if meant else f" An option that its class takes beside these is added with +{key}=VALUE."
    return f"There is no {key}.{meant}{add} In {parent}: {', '.join(siblings)}."


def _values() -> list[str]:
    config: Any = compose("train")
    assert isinstance(config, DictConfig)
    return [name for name, _ in flat(OmegaConf.to_container(config))]  # type: ignore[arg-type]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
