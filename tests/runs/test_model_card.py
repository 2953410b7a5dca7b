"""The card says what the run says, and its command makes the same run."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from small_runs import small_config

from lightning_sparse_rnn.commands.export import main as export
from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.flat_config import flat
from lightning_sparse_rnn.runs.model_card import model_card, training_command
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.runs.training import train


@pytest.fixture(scope="module")
def runs(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("selfish", "small_dense"):
        train(small_config(text, folder, f"method={name}", "trainer.max_epochs=1"), folder / name)
    return {name: folder / name for name in ("selfish", "small_dense")}


def metadata(card: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return loaded


def test_the_card_names_counts_perplexities_and_the_twin(runs: dict[str, Path]) -> None:
    card = model_card(runs["selfish"], "weights.sparse.pt", twin=runs["small_dense"], license="apache-2.0")
    for name in runs:
        results = read_run(runs[name]).results
        assert results is not None
        assert f"{results['live_weights']:,} of {results['total_weights']:,}" in card
        assert f"{results['test_ppl']:.2f} |" in card
    assert metadata(card)["license"] == "apache-2.0"
    (entry,) = metadata(card)["model-index"]
    results = read_run(runs["selfish"]).results
    assert results is not None
    assert entry["results"][0]["metrics"][1] == {
        "type": "perplexity",
        "name": "test_ppl",
        "value": round(results["test_ppl"], 2),
    }
    assert "license" not in metadata(model_card(runs["selfish"], "weights.sparse.pt"))


def test_the_command_makes_the_same_config(runs: dict[str, Path]) -> None:
    settings = read_run(runs["selfish"]).settings
    program, *overrides = shlex.split(training_command(settings))
    assert program == "sparse-rnn-train"
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        again = dict(flat(OmegaConf.to_container(compose("train", overrides), resolve=False)))
    for name in (
        "data.root",
        "data.batch_size",
        "model.network.hidden_size",
        "trainer.max_epochs",
        "optimizer.nonmono",
    ):
        assert again[name] == settings[name], name


def test_export_writes_the_card_and_no_other_readme(runs: dict[str, Path], tmp_path: Path) -> None:
    run = str(runs["selfish"])
    export([run, "--output", str(tmp_path / "w.pt"), "--card"])
    assert "load_sparse('w.pt')" in (tmp_path / "README.md").read_text()
    export([run, "--output", str(tmp_path / "w.pt"), "--card"])  # a card gives way to a newer one
    (tmp_path / "README.md").write_text("# Something else")
    with pytest.raises(SystemExit, match="that is no model card"):
        export([run, "--output", str(tmp_path / "w.pt"), "--card"])
    assert (tmp_path / "README.md").read_text() == "# Something else"


def test_an_unfinished_run_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a finished run"):
        model_card(tmp_path, "weights.sparse.pt")
