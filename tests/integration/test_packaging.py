"""What `pyproject.toml` says of the package."""

import ast
import importlib.util
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
BARE = {"torch", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy"}


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


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=~! \[;]", requirement)[0]) for requirement in requirements}


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    provided = packages_distributions()
    # Triton comes with torch, where there is one; `lightning` is taken where it has been imported; type checkers alone
    # read what is imported of `typing_extensions`; and what exports alone needs is not installed with what tests need.
    others = {"triton", "lightning", "typing_extensions", "safetensors", "onnx", "onnxscript"}
    used = {normal(provided[module][0]) for module in imported_modules() - others}
    assert {"safetensors", "onnx", "onnxscript"} == names(PROJECT["optional-dependencies"]["export"])
    extras = PROJECT["optional-dependencies"]
    assert names(PROJECT["dependencies"]) == BARE
    assert used | {"tqdm"} == BARE | names(extras["report"]) | names(extras["data"])


def test_all_is_every_extra_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(re.findall(r"\w+", everything.partition("[")[2])) == set(extras) - {"all", "dev", "docs"}


def test_a_release_has_the_addresses_of_its_repository_and_no_link_into_nowhere() -> None:
    path = ROOT / ".github" / "addresses.py"
    spec = importlib.util.spec_from_file_location("addresses", path)
    assert spec is not None
    assert spec.loader is not None
    addresses = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(addresses)
    here, site = "https://host.example/me/it", "https://me.example/it/"
    text = addresses.with_urls((ROOT / "pyproject.toml").read_text(), here, site, "v1")
    urls = tomllib.loads(text)["project"]["urls"]
    assert urls == {
        **PROJECT["urls"],
        "Documentation": site,
        "Repository": here,
        "Changelog": f"{here}/blob/v1/CHANGELOG.md",
        "Issues": f"{here}/issues",
    }
    page = addresses.with_whole_links((ROOT / "README.md").read_text(), here, "v1")
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert len(links) > 10
    assert all(link.startswith("https://") for link in links)
    assert f"]({here}/raw/v1/docs/default_run.png)" in page
    for link in links:
        if link.startswith(f"{here}/blob/v1/"):
            assert (ROOT / link.removeprefix(f"{here}/blob/v1/").partition("#")[0]).exists(), link
