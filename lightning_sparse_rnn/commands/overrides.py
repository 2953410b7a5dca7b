"""What the command line of ``sparse-rnn-train`` changes, looked at before anything is made."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # Hydra has no public way to tell options from overrides
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf

from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.config_checks import near
from lightning_sparse_rnn.runs.flat_config import flat
from lightning_sparse_rnn.runs.naming import check_name
from lightning_sparse_rnn.runs.old_configs import MOVED
from lightning_sparse_rnn.runs.quoting import in_quotes

__all__ = ["CommandLine", "arranged", "checked"]

_DEFAULT = Path("runs")
_COUNTED = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP)
# Values that may name a run's folder, and other paths.
_PATHS = ("init_from", "name", "hydra.run.dir", "output", "data.root", "data.cache_dir")
# What every run has.
_NEEDED = ("data", "model", "method", "optimizer", "trainer", "callbacks")
_GROUPS = (*_NEEDED, "experiment", "sweep", "logger")


class CommandLine(NamedTuple):
    """What a command line says that is known before anything is made.

    Attributes:
        output: the folder of runs.
        runs: how many there will be; ``None`` if it is one, or nobody knows.
        several: whether ``-m`` makes one for each combination of values.
    """

    output: Path
    runs: int | None = None
    several: bool = False


def arranged(arguments: Sequence[str]) -> list[str]:
    """Return the command line as Hydra takes it: ``-m`` first, and quotes around paths that it needs them for."""
    several = ("-m", "--multirun")
    flags = [argument for argument in arguments if argument in several]
    return [*flags, *(_quoted(argument) for argument in arguments if argument not in several)]


def _quoted(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if key.lstrip("+") not in _PATHS or not equals or not value or _is_read(argument):
        return argument
    # A list of several is a sweep, unless there is a file or folder of that name.
    several = [value] if key == "name" or Path(value).exists() else _parts(value)
    if key != "name":  # shells leave a ~ after a = as it is
        several = [os.path.expanduser(each) for each in several]  # noqa: PTH111, which would change other paths, too
    quoted = [each if each.startswith(("'", '"')) else in_quotes(each) for each in several]
    return f"{key}={','.join(quoted)}"


def _is_read(argument: str) -> bool:
    """Whether Hydra reads a path where it stands without quotes, or several, and not a number or a list."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return override.is_sweep_override() or override.value() is None or isinstance(override.value(), str)


def _parts(value: str) -> list[str]:
    """Cut at commas that stand in no brackets."""
    parts, depth = [""], 0
    for sign in value:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def checked(arguments: Sequence[str]) -> CommandLine:
    """Return what the command line says of the runs, and make sure that Hydra can take all of it.

    Raises:
        ValueError: it cannot; the message names what is near, or what there is to choose from.
    """
    given = get_args_parser().parse_args(list(arguments))
    if given.config_path or given.config_name or given.config_dir or given.help or given.hydra_help:
        return CommandLine(_DEFAULT)  # other configs than ours are Hydra's to judge
    try:
        overrides = OverridesParser.create().parse_overrides(given.overrides)
    except OverrideParseException as error:
        raise ValueError(f"Expected options like key=value, got {error.override}: {_first_line(error)}") from None
    for override in overrides:
        _refuse_moved(override)
        _refuse_none(override)
        _refuse_sweeps(override)
        _refuse_empty(override)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        named = _composed(overrides)
    several = given.multirun or named["hydra"]["mode"] == RunMode.MULTIRUN
    if not several:
        _refuse_several(overrides, named["hydra"]["sweeper"])
    if named["name"] is not None:
        check_name(named["name"])
    output = _DEFAULT if "${" in str(named["output"]) else _writable(Path(named["output"]))
    return CommandLine(output, _count(overrides, named["hydra"]["sweeper"]) if several else None, several)


def _composed(overrides: Sequence[Override]) -> dict[str, Any]:
    """Return the config that overrides compose to, Hydra's own under ``hydra``; of a sweep that of its first run.

    Raises:
        ValueError: they compose to none.
    """
    lines = [line for override in overrides if (line := _single(override))]
    try:
        config: Any = OmegaConf.to_container(compose("train", lines, return_hydra_config=True))
    except (HydraException, ValueError) as error:
        raise _plain(error, overrides) from None
    return config


def _refuse_several(overrides: Sequence[Override], sweeper: Mapping[str, Any]) -> None:
    """Refuse values for several runs where there will be one."""
    for override in overrides:
        if override.is_sweep_override():
            line = override.input_line
            raise ValueError(
                f"{line} is for several runs, one for each value, and those are made with -m: -m {line}. A value that "
                "is a list is written in brackets, key=[1,2]; one with commas in it in quotes, \"key='a,b'\"."
            )
    if sweeper.get("params"):
        of_sweeps = [o.input_line for o in overrides if f"{o.key_or_group}.".startswith(("sweep.", "hydra.sweeper."))]
        line = of_sweeps[-1] if of_sweeps else "hydra.sweeper.params"
        raise ValueError(f"{line} is for several runs, and those are made with -m: sparse-rnn-train -m {line}")


def _writable(folder: Path) -> Path:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with TemporaryDirectory(prefix=".sparse-rnn-", dir=there):  # what an administrator may do shows only so
            return folder
    except OSError as error:
        raise ValueError(
            f"Cannot write to output={folder}: {there} is not a folder that this user may write to "
            f"({error.strerror or error})."
        ) from None


def _count(overrides: Sequence[Override], sweeper: Mapping[str, Any]) -> int | None:
    """Return how many runs Hydra's own sweeper makes; ``None`` for any other."""
    if not str(sweeper["_target_"]).endswith(".BasicSweeper"):
        return None
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    last = {each.get_key_element(): each for each in (*OverridesParser.create().parse_overrides(params), *overrides)}
    swept = [each for each in last.values() if each.is_sweep_override()]
    if any(each.value_type not in _COUNTED for each in swept):
        return None
    return math.prod(sum(1 for _ in each.sweep_string_iterator()) for each in swept)


def _single(override: Override) -> str:
    """Return the override, and of a sweep over listed values the first of them; nothing of any other sweep."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return line
    if override.value_type in _COUNTED:
        return f"{line.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"
    return ""


def _refuse_moved(override: Override) -> None:
    name = override.key_or_group
    for old, new in MOVED.items():
        if name == old or name.startswith(f"{old}."):
            now = f"{new}{name.removeprefix(old)}"
            hint = ", as shares of trainer.max_epochs: [0.667] for two thirds" if now.endswith("restart_at") else ""
            raise ValueError(f"{name} is now {now}{hint}.")


def _refuse_empty(override: Override) -> None:
    """Refuse a path without a value, as of a variable of the shell that is not set: it would be the root folder."""
    if override.key_or_group in _PATHS and not override.is_delete() and override.value() == "":
        raise ValueError(f"Expected a value in {override.input_line}, got nothing. Is a variable of the shell not set?")


def _refuse_sweeps(override: Override) -> None:
    """Refuse several sweeps in one command: Hydra would make the runs of the first one's config alone."""
    if override.key_or_group == "sweep" and override.is_sweep_override():
        raise ValueError(f"Expected one sweep, got {override.input_line}. Run them one after the other.")


def _refuse_none(override: Override) -> None:
    """Refuse to leave a part out that every run has."""
    key = override.key_or_group
    if key in _NEEDED and (override.is_delete() or override.value() is None):
        dense = " Without sparsity: method=dense." if key == "method" else ""
        line = override.input_line
        raise ValueError(f"Every run needs a config of {key}, and {line} leaves none. Choose one: {key}=NAME.{dense}")


def _plain(error: Exception, overrides: Sequence[Override]) -> Exception:
    """Return Hydra's error in our words: what was given, what is near, and last what there is to choose from.

    Raises:
        ValueError: there is another mistake among the overrides, which is to be told first.
    """
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return ValueError(f"There is no {group}={name}.{near(name, error.options)} Known: {', '.join(error.options)}.")
    said = str(error)
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if override.is_add() and (f"already at '{key}'" in said or f"values for {key}." in said):
            return ValueError(f"{key} is there already: {key}=VALUE changes it, without the +.")
        if key in _GROUPS and "Config group override must be" in said and not isinstance(value, (str, list)):
            return ValueError(f"Expected the name of a config, got {override.input_line}. To choose none: ~{key}")
    found = re.search(r"Could not (?:override|delete)[^']*'([^'=@]+)['=]", said)
    return ValueError(_first_line(error) if found is None else _unknown(found.group(1), overrides))


def _unknown(key: str, overrides: Sequence[Override]) -> str:
    """Say that there is no ``key`` in the config that all other overrides compose to."""
    others = [override for override in overrides if override.key_or_group != key]
    # Without the one that is at fault each time, so that this comes to an end.
    config = _composed(others if len(others) < len(overrides) else [])
    values = [name for name, _ in flat(config) if key.startswith("hydra") or not name.startswith("hydra.")]
    given, last = key, key.rpartition(".")[2]
    elsewhere = [name for name in values if name.rpartition(".")[2] == last]
    while not (siblings := _beside(key, values)):  # up to the first part that is not there
        key = key.rpartition(".")[0]
    parent, _, missing = key.rpartition(".")
    if missing in siblings:
        return f"There is no {given}: {key} is a single value."
    meant = near(missing, siblings) or (f" Did you mean {' or '.join(elsewhere[:2])}?" if elsewhere else "")
    if not parent:
        groups = [name for name in _GROUPS if name in siblings or name in ("experiment", "sweep")]
        single = [name for name in siblings if name not in (*groups, "chosen", "hydra")]
        return f"There is no {key}.{meant} Groups: {', '.join(groups)}. Values: {', '.join(single)}."
    add = "" if meant else f" An option that its class takes beside these is added with +{given}=VALUE."
    return f"There is no {key}.{meant}{add} In {parent}: {', '.join(siblings)}."


def _beside(key: str, values: Sequence[str]) -> list[str]:
    """Return the names that there are where ``key`` would stand."""
    parent = key[: key.rfind(".") + 1]
    return sorted({name.removeprefix(parent).partition(".")[0] for name in values if name.startswith(parent)})


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
