"""The rooms of the package, and who may import whom: imports point down only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "lightning_sparse_rnn"
NAME = PACKAGE.name

# From the top down. A room imports rooms of the floors below its own: neither its neighbours nor those above it.
FLOORS = (
    ("commands",),
    ("report",),
    ("runs",),
    ("callbacks", "inference"),
    ("models",),
    ("sparsity", "data", "checkpoints"),
    ("optim",),
    ("utilities",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
APART = {("models", "sparsity"), ("callbacks", "models")}  # of the pairs that the floors would allow
WITHOUT_LIGHTNING = ("sparsity", "optim")
LIGHTNING = ("pytorch_lightning", "lightning", "torchmetrics")


def room_of(module: str) -> str | None:
    """``runs`` of ``lightning_sparse_rnn.runs.folder``; None of the package's root and of other packages."""
    package, room, *_ = *module.split("."), ""
    return (room or None) if package == NAME else None


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever in it and for type checking too, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: import by the whole name, as elsewhere"
            # `from lightning_sparse_rnn import models` names a room behind the word import.
            names = [f".{name.name}" for name in node.names] if node.module == NAME else [""]
            yield from ((f"{node.module}{name}", node.lineno) for name in names)


def complaint(room: str, module: str) -> str | None:
    """What is wrong with importing ``module`` in ``room``, or None."""
    other = room_of(module)
    if room in WITHOUT_LIGHTNING and module.split(".")[0] in LIGHTNING:
        return "this room does without Lightning"
    if other in (None, room, "__version__"):
        return None
    if other not in FLOOR:
        return f"from the root comes nothing but the version: write where the name lives (rooms are {', '.join(FLOOR)})"
    if (room, other) in APART:
        return f"{room} knows nothing of {other}"
    return None if FLOOR[room] < FLOOR[other] else f"{other} is not below {room}"


def files() -> Iterator[tuple[str, Path]]:
    """Each file in a room, and that room. The root's own file names the public objects of all of them."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent != PACKAGE:
            yield path.relative_to(PACKAGE).parts[0], path


def test_imports_point_down_only() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}, line {line}, imports {module}: {said}"
        for room, path in files()
        for module, line in imports(path)
        if (said := complaint(room, module))
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_method_imports_where_lightning_is_not_installed() -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for room, path in files()
        if room in WITHOUT_LIGHTNING
    ]
    code = [
        "import sys, importlib",
        f"sys.modules.update(dict.fromkeys({LIGHTNING}))",  # None there: importing it is an ImportError
        f"for module in {modules}: importlib.import_module(module)",
        f"from {NAME} import SNTASGD, SparseTopology, load_sparse, save_sparse",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders <= set(FLOOR), "name a new room, and the floor it stands on, in FLOORS"


def test_no_file_is_longer_than_350_lines() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for _, path in files()}
    assert not {name: length for name, length in lengths.items() if length > 350}


def test_the_rule_finds_what_breaks_it() -> None:
    assert complaint("models", f"{NAME}.sparsity.masks") == "models knows nothing of sparsity"
    assert complaint("sparsity", f"{NAME}.callbacks.averaging") == "callbacks is not below sparsity"
    assert complaint("data", f"{NAME}.checkpoints.fits") == "checkpoints is not below data"
    assert complaint("optim", "lightning.pytorch") == "this room does without Lightning"
    assert complaint("utilities", f"{NAME}.optim.steps") == "optim is not below utilities"
    assert complaint("report", f"{NAME}.commands.report") == "commands is not below report"
    assert "write where the name lives" in str(complaint("runs", f"{NAME}.SNTASGD"))
    assert complaint("callbacks", f"{NAME}.checkpoints.reading") is None
    assert complaint("optim", f"{NAME}.utilities.checks") is None
