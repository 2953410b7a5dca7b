"""The examples in docstrings: each prints what it says, and every public class has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lightning_sparse_rnn"
ROOMS = ("", ".models", ".data", ".optim", ".sparsity")
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


WITH_EXAMPLES = sorted(module_name(path) for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text("utf-8"))
PUBLIC = {
    public
    for room in ROOMS
    for name in importlib.import_module(f"lightning_sparse_rnn{room}").__all__
    if inspect.isclass(public := getattr(importlib.import_module(f"lightning_sparse_rnn{room}"), name))
}


# torch deprecates its own quantization, which an example uses.
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_print_what_they_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for the files that they write
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("public", sorted(PUBLIC, key=lambda public: public.__name__))
def test_a_public_class_has_an_example(public: type) -> None:
    assert ">>> " in (inspect.getdoc(public) or ""), f"{public.__module__}.{public.__qualname__}"
