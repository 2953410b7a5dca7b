"""The documentation as tests read it: its pages, the code on them, and the commands that they name."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: First words of what is typed, where it stands within a sentence or a table.
_TYPED = ("sparse-rnn-", "python ", "make ", "pip ")


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """What stands in single backticks on a page, outside of its blocks of code."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command on a page: in its blocks of bash, and in sentences and tables."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *(span for span in spans(text) if span.startswith(_TYPED))]:
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&"]:
            if word not in ("&", "&&", ";"):
                words.append(word)
            else:
                if words:
                    yield words
                words = []


def arguments_of(command: str, text: str) -> Iterator[list[str]]:
    """The arguments of every use of a command on a page, also where another starts it, as ``srun`` does."""
    for words in commands(text):
        if command in words:
            yield words[words.index(command) + 1 :]
