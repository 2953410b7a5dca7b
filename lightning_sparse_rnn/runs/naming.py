"""What a run's folder is called: after the options that make it another run than the default one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightning_sparse_rnn.runs.folder import CONFIG
from lightning_sparse_rnn.runs.paths import PATHS, one_path
from lightning_sparse_rnn.runs.shown import ELSEWHERE, SHOWN_BY_TRAINER, is_shown

__all__ = ["check_name", "old_run_name", "run_name"]

_LONGEST_NAME = 120
_LONGEST_POSSIBLE = 255  # on nearly every file system; both in bytes
# Values that a name shows whole: words, numbers, and lists that could be nothing else without their brackets.
_SHOWN_WHOLE = re.compile(r"[\w.+-]*|\[([\w.+-]+(, ?[\w.+-]+)+|[\d.+-]*)\]")
# What runs are compared by comes first; what stays the same in a comparison comes last.
_ORDER = (
    *("method", "sparsity", "prune_rate", "initial_scale", "optimizer", "model", "callbacks"),
    *("seed", "", "init_from", "experiment", "data", "trainer"),
)
# The groups whose name an option can do without: no two of them have an option of one name that runs are told by.
_UNDERSTOOD = ("method", "optimizer", "model.network", "model", "data", "trainer")
# These are values of their own, beside those of the groups.
_ALSO_ALONE = ("seed", "sparsity", "prune_rate", "initial_scale", "matmul_precision", "name", "output", "init_from")
# What makes no other run, with what Hydra does beside.
_ELSEWHERE = (*ELSEWHERE, "hydra")


def run_name(overrides: Iterable[str], output: str | None = None, name: str | None = None) -> str:
    """Return the name of a run's folder: ``name``, or its overrides, those first that runs are compared by.

    Overrides that say where a run goes, or what it shows and logs, are no part of the name, nor is the sweep that it
    belongs to, which gives each of its runs overrides of their own, nor are groups that go without saying:
    ``model.network.hidden_size=200`` is ``hidden_size=200``. Of a path there is the last part, and for other
    characters than a folder's name should have a dash. A name from which the overrides could not be told, or that
    would be too long, ends in a hash of them. A path makes one name, however it is written.

    Args:
        overrides: as on the command line, in any order.
        output: the folder of runs. A run that stands there under a name that earlier versions gave it keeps that.
        name: a name of one's own.

    Raises:
        ValueError: ``name`` is none that a folder can have.
    """
    overrides = list(overrides)
    if name is not None:
        check_name(name)
        return name
    told = list(_told_by(overrides))
    for old in (_name(told), old_run_name(overrides)):
        if output is not None and _is_possible(old) and (Path(output) / old / CONFIG).is_file():
            return old
    now = [(sign, key, one_path(value) if key in PATHS else value) for sign, key, value in told]
    return _name([each for each in now if each[1] != "sweep"])


def _name(told: Iterable[tuple[str, str, str]]) -> str:
    """Return the name that says what is told, as signs, keys and values."""
    given = {key: (sign, value) for sign, key, value in told}
    keys = sorted(given, key=lambda key: (_rank(key), key))
    short = [_short(key) for key in keys]
    parts, lossy = [], False
    for key, shorter in zip(keys, short, strict=True):
        sign, value = given[key]
        lossy = lossy or not _SHOWN_WHOLE.fullmatch(value)
        label = shorter if short.count(shorter) == 1 else key
        parts.append(f"no-{key}" if sign == "~" else f"{label}={_legible(value)}")
    legible = re.sub(r"[^\w.,=+-]+", "-", ",".join(parts)) or "default"
    if lossy or len(legible.encode()) > _LONGEST_NAME:
        whole = ",".join(f"{given[key][0]}{key}={given[key][1]}" for key in sorted(given))
        legible = f"{_cut(legible)}-{hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()}"
    return legible


def check_name(name: str) -> None:
    """Make sure that a folder can have this name, and that it is one.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(r"[^/\\\0]+", str(name)) or str(name).startswith(".") or not _is_possible(str(name)):
        raise ValueError(
            f"Expected name to be one that a folder can have, without / and \\, with no dot in front and of at most "
            f"{_LONGEST_POSSIBLE} bytes, got {name!r}. Where runs go is output=FOLDER."
        )


def _is_possible(name: str) -> bool:
    return len(name.encode()) <= _LONGEST_POSSIBLE


def _told_by(overrides: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield sign, key and value of the overrides that make another run."""
    split = [re.fullmatch(r"(~|\+{0,2})([^=]*)=?(.*)", override, re.DOTALL) for override in overrides]
    found = [(match[1], match[2], _bare(match[3])) for match in split if match is not None]
    targets = {key: value for _, key, value in found if re.fullmatch(r"callbacks\.[^.]+\._target_", key)}
    shown = {key.split(".")[1] for key, value in targets.items() if is_shown(key.split(".")[1], value)}
    for sign, key, value in found:
        group, _, rest = key.partition(".")
        if group.partition("/")[0] in _ELSEWHERE or key in _ELSEWHERE:
            continue
        if group == "callbacks" and (rest.partition(".")[0] in shown or is_shown(rest.partition(".")[0], None)):
            continue
        if group != "trainer" or rest not in SHOWN_BY_TRAINER:
            yield sign, key, value


def _bare(value: str) -> str:
    bare = value.strip("'\"")
    return value if bare.startswith(("[", "{")) else bare  # in quotes that is a text, and no list


def _rank(key: str) -> int:
    group = key.partition(".")[0]
    return _ORDER.index(group if group in _ORDER else "")


def _short(key: str) -> str:
    for group in _UNDERSTOOD:
        rest = key.removeprefix(f"{group}.")
        if rest != key and "." not in rest and not rest.startswith("_") and rest not in _ALSO_ALONE:
            return rest
    return key


def _cut(name: str) -> str:
    """Return a name, or as much of it as is not too long: up to the end of an option, if there is one."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    begins = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return begins.rpartition(",")[0] or begins


def _legible(value: str) -> str:
    plain = re.sub(r"[\[\]{}'\"]|(?<=,) ", "", value)
    parts = [part for part in plain.split("/") if part]
    return re.sub(r"[^\w.,+-]+", "-", parts[-1] if parts else "")


def old_run_name(overrides: Iterable[str]) -> str:
    """Return the name that versions before this one gave the folder: all overrides, sorted."""
    elsewhere = (
        "output=",
        "hydra.",
        "hydra/",
        "trainer.enable_progress_bar=",
        "callbacks.progress",
        "compact_checkpoints=",
    )
    parts = sorted(override for override in overrides if not override.lstrip("+~").startswith(elsewhere))
    name = ",".join(re.sub(r"[^\w.,=+-]+", "-", part) for part in parts) or "default"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
    return name
