"""What `pyproject.toml` says of the package."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same under its old name
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_modules() -> set[str]:
    """The top-level modules of others that the package imports, anywhere in it."""
    found = set()
    for path in (ROOT / "lightning_sparse_rnn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"lightning_sparse_rnn"}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    provided = packages_distributions()
    # Triton comes with torch, where there is one.
    used = {normal(provided[module][0]) for module in imported_modules() - {"triton"}}
    declared = {normal(re.split(r"[<>=~! ]", requirement)[0]) for requirement in PROJECT["dependencies"]}
    assert used | {"tqdm"} == declared  # pooch shows its progress with tqdm, and does not require it
