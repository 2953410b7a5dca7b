"""What the pages say can be done can be done: commands name what there is, and recipes train."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from pages import PAGES, ROOT, arguments_of, blocks
from small_runs import small_config

from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.training import train

EXTEND = (ROOT / "docs" / "how-to" / "extend.md").read_text()
# The command, and what torchrun starts in its place.
NAMES = ("sparse-rnn-train", "lightning_sparse_rnn.commands.train")
COMMANDS = sorted(
    {shlex.join(given) for page in PAGES for name in NAMES for given in arguments_of(name, page.read_text())}
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_training_command_names_what_there_is(command: str) -> None:
    given = [word for word in shlex.split(command.replace("--cfg job", "")) if not word.startswith("-")]
    if any(word.startswith("hydra") for word in given):
        pytest.skip("with configs or plugins that are not the package's")
    batches = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(given), None)
    first, last = batches[0][0], batches[-1][-1]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for overrides in (first, last):
            assert compose("train", overrides)


def test_the_commands_were_found() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_is_python(page: Path) -> None:
    for block in blocks(page.read_text(), "python"):
        if "--8<--" not in block:
            compile(block, str(page), "exec")


def recipe(file: str) -> str:
    """The one block of code of the page that belongs into ``file``."""
    (code,) = (block for block in blocks(EXTEND, r"\w+") if block.startswith(f"# {file}\n"))
    return code


def test_the_schedule_of_the_page_trains(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_schedules.py").write_text(recipe("my_schedules.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    results = train(small_config(text, tmp_path, "method.schedule=my_schedules.two_steps"), tmp_path / "run")
    assert results["sparsity"] == pytest.approx(0.67, abs=0.01)


def test_the_network_of_the_page_trains_sparse(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(recipe("my_networks.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    config = small_config(text, tmp_path, "model=gru")
    config.model.network = {"_target_": "my_networks.ElmanNetwork", "hidden_size": 10}
    results = train(config, tmp_path / "run")
    assert results["sparsity"] == pytest.approx(0.67, abs=0.01)
