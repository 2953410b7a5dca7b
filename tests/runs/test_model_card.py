"""The card says what the run says, and its command makes the same run."""

import shlex
import shutil
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
from lightning_sparse_rnn.runs.old_configs import same_runs
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
    card = model_card(runs["selfish"], "weights = ...", twin=runs["small_dense"], license="apache-2.0")
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
    plain = model_card(runs["selfish"], "weights = ...")
    assert "license" not in metadata(plain)
    assert "rounded" not in plain
    assert "weights rounded to int8; perplexities are of float32" in model_card(runs["selfish"], "", rounded="int8")


@pytest.mark.parametrize(
    "changed",
    [
        ["trainer.max_epochs=1"],
        ["trainer.max_epochs=5", "initial_scale=none", "sparsity=0.8", "model.network.hidden_size=16"],
        ["callbacks.averaging.restart_at=[0.5]", "method.sparsity=0.7", "data.tokens=characters"],
        ["method.allocation={*layers*:0.6,*decoder*:0.35}"],
        ["output='1.50'", "data.cache_dir='/d/josé\\x it\\'s, [b]'"],
        ["~callbacks.averaging.restart_at", "+callbacks.averaging.restart_epochs=[2]"],
    ],
    ids=lambda changed: changed[0],
)
def test_the_command_makes_the_same_config(changed: list[str], text: Path, tmp_path: Path) -> None:
    config = small_config(text, tmp_path, *changed)
    config.chosen, config.output = {"method": "selfish", "data": "folder"}, str(tmp_path)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    settings = read_run(tmp_path).settings
    program, *overrides = shlex.split(training_command(settings))
    assert program == "sparse-rnn-train"
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = compose("train", overrides)
    composed.chosen, composed.output = config.chosen, config.output
    again = dict(flat(same_runs(OmegaConf.to_container(composed, resolve=True))))  # type: ignore[arg-type]
    # The two that are only there for others to be made from may differ, if those do not.
    used = {name: value for name, value in settings.items() if name not in ("sparsity", "prune_rate")}
    assert {name: again.get(name) for name in used} == used
    if changed == ["trainer.max_epochs=1"]:
        assert not [word for word in overrides if "restart" in word]


def test_export_writes_the_card_and_no_other_readme(runs: dict[str, Path], tmp_path: Path) -> None:
    run = str(runs["selfish"])
    export([run, "--output", str(tmp_path / "w.pt"), "--card"])
    card = (tmp_path / "README.md").read_text()
    assert "load_sparse('w.pt')" in card
    assert "sparse-rnn-generate w.pt\n" in card
    export([run, "--output", str(tmp_path / "w.pt"), "--card"])  # a card gives way to a newer one
    (tmp_path / "README.md").write_text("# Something else")
    with pytest.raises(SystemExit, match="that is no model card"):
        export([run, "--output", str(tmp_path / "w.pt"), "--card"])
    assert (tmp_path / "README.md").read_text() == "# Something else"
    export([run, "--output", str(tmp_path / "d" / "w.pt"), "--card", "--format", "dense"])
    card = (tmp_path / "d" / "README.md").read_text()
    assert "torch.load('w.pt', weights_only=True)" in card
    assert "sparse-rnn-generate" not in card  # which does not read this format


def test_a_twin_is_dense_and_of_as_few_weights_and_of_the_same_text(
    runs: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"Expected a twin with about .* weights, all of them live, got .*small_dense"):
        model_card(runs["selfish"], "", twin=runs["selfish"])
    other = shutil.copytree(runs["small_dense"], tmp_path / "other")
    config = OmegaConf.load(other / "config.yaml")
    config.data.train_lines = 7
    OmegaConf.save(config, other / "config.yaml")
    with pytest.raises(ValueError, match=r"Expected a twin that was trained on .*, got one on .*, first 7 lines\."):
        model_card(runs["selfish"], "", twin=other)


def test_the_card_of_a_run_with_a_config_of_ones_own_says_where_its_values_are(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(runs["selfish"], tmp_path / "other")
    config = OmegaConf.load(other / "config.yaml")
    config.chosen.method = "mine"
    OmegaConf.save(config, other / "config.yaml")
    assert "made with `method/mine`, which is none of the package's configs. The `config.yaml`" in model_card(other, "")


def test_an_unfinished_run_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a finished run"):
        model_card(tmp_path, "weights = ...")
