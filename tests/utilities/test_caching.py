from pathlib import Path

import pytest

from lightning_sparse_rnn.utilities.caching import cache_folder

HOME = Path("home")


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: HOME)
    for name in ("LIGHTNING_SPARSE_RNN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", HOME / ".cache" / "lightning_sparse_rnn"),
        ("darwin", HOME / "Library" / "Caches" / "lightning_sparse_rnn"),
        ("win32", HOME / "AppData" / "Local" / "lightning_sparse_rnn" / "Cache"),
    ],
)
def test_each_system_has_its_usual_folder(platform: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert cache_folder() == folder


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XDG_CACHE_HOME": "caches"}, Path("caches") / "lightning_sparse_rnn"),
        ({"XDG_CACHE_HOME": "caches", "LIGHTNING_SPARSE_RNN_CACHE": "mine"}, Path("mine")),
    ],
)
def test_variables_name_another(variables: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == folder
