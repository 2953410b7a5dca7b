"""What the pages name is there: options, files, modules, extras, and the versions that were tried."""

import argparse
import ast
import importlib
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from pages import PAGES, ROOT, arguments_of, blocks, commands, spans

from lightning_sparse_rnn.runs.config import CONFIG_DIR

COMMANDS = {
    "sparse-rnn-test": "evaluate",
    "sparse-rnn-generate": "generate",
    "sparse-rnn-export": "export",
    "sparse-rnn-report": "report",
}
#: Folders whose files the pages name from the repository's root; others are named within the package or the tests.
FOLDERS = ("benchmarks", "conf", "docs", "examples", "lightning_sparse_rnn", "tests", ".github")
FILES = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
#: What runs write, and what readers write themselves.
THEIRS = r"my_.*|config\.yaml|runs/.*"
GROUPS = r"(?:data|model|method|optimizer|callbacks|logger|trainer|sweep|experiment|model\.network)"
parametrized = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


class Parsed(Exception):
    """A command line was taken."""


def taken(parse: Callable[..., argparse.Namespace]) -> Callable[..., argparse.Namespace]:
    def parse_and_stop(*arguments: object) -> argparse.Namespace:
        raise Parsed(parse(*arguments))

    return parse_and_stop


@parametrized
def test_commands_take_the_options_of_the_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, taken(getattr(argparse.ArgumentParser, name)))
    for command, module in COMMANDS.items():
        for given in arguments_of(command, page.read_text()):
            if given:  # and not the command's name alone
                with pytest.raises(Parsed):
                    importlib.import_module(f"lightning_sparse_rnn.commands.{module}").main(given)


@parametrized
def test_programs_are_there_and_know_their_options(page: Path) -> None:
    for words in commands(page.read_text()):
        if words[0] != "python" or words[1:3] == ["-m", "pytest"]:
            continue
        program = words[2].replace(".", "/") if words[1] == "-m" else words[1].removesuffix(".py")
        folder = ROOT / program
        path = folder / "__main__.py" if folder.is_dir() else folder.with_suffix(".py")
        code = path.read_text()
        for word in words:
            assert word == "--" or not word.startswith("--") or f'"{word}"' in code, f"{path} has no {word}"


@parametrized
def test_files_in_sentences_are_there(page: Path) -> None:
    for span in spans(page.read_text()):
        if re.fullmatch(r"[\w./-]+\.(?:py|yaml)", span) and not re.fullmatch(THEIRS, span):
            assert any(f"/{file}".endswith(f"/{span}") for file in FILES), span
        elif re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", span):
            assert (ROOT / span).exists(), span


def anchors(page: Path) -> set[str]:
    """What a link into a page can name: its headings, as GitHub and the site write them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower())) for heading in headings}


@parametrized
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        if ":" in name:
            continue
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor.startswith("lightning_sparse_rnn."):  # of the reference, made from docstrings
            assert pkgutil.resolve_name(anchor), link
        elif anchor:
            assert anchor in anchors(target), link


@parametrized
def test_names_of_the_package_are_there(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"(?<![\w./])lightning_sparse_rnn(?:\.\w+)+", text):
        assert pkgutil.resolve_name(name), name
    for block in (block for block in blocks(text, "python") if "--8<--" not in block):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lightning_sparse_rnn"):
                for alias in node.names:
                    assert pkgutil.resolve_name(f"{node.module}:{alias.name}"), alias.name


@parametrized
def test_options_in_sentences_compose(page: Path) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for span in spans(page.read_text()):
            named = [word for word in span.split() if re.fullmatch(rf"{GROUPS}(?:\.\w+)*=[\w.\[\],/-]+", word)]
            # Of several values, which are for a sweep, the last one.
            single = [word if "[" in word else re.sub(r"=.*,", "=", word) for word in named]
            if single:
                compose("train", single)


@parametrized
def test_targets_and_extras_are_there(page: Path) -> None:
    text = page.read_text()
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    for words in commands(text):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        if words[0] == "pip":
            for extra in re.findall(r"\.\[(\w+)\]", " ".join(words)):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_versions_that_were_tried_are_those_that_are_installed_for_it() -> None:
    pins = re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / ".github" / "requirements" / "ecosystem.txt").read_text(), re.M)
    assert len(pins) > 8
    said = "".join((ROOT / "docs" / "how-to" / f"{name}.md").read_text() for name in ("sparsify", "sweep"))
    for name, version in pins:
        assert re.search(rf"{name}`?\)? \(?{re.escape(version)}\b", said), f"{name} {version}"
