"""Text from a checkpoint."""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lightning_sparse_rnn.commands.export import main as export
from lightning_sparse_rnn.commands.generate import main
from lightning_sparse_rnn.data import TextDataModule, Vocabulary
from lightning_sparse_rnn.models import GRU, AWDLSTMMoS, LanguageModel, RecurrentHighwayNetwork
from lightning_sparse_rnn.models.generation import generate
from tests.helpers.trained_checkpoints import save_checkpoint

# Lightning 2.6's own, with the newest torch.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

TEXT = "the cat sat\nthe dog ran\na cat ran to the dog\n"
NETWORK = {"_target_": "lightning_sparse_rnn.models.LSTM", "embedding_size": 8, "hidden_size": 8, "dropout": 0.0}


def take(count, *args, **options):
    return list(itertools.islice(generate(*args, **options), count))


class TestDraws:
    @pytest.mark.parametrize(
        "network",
        [GRU(9, 4, 4), RecurrentHighwayNetwork(9, 4, 4, 2), AWDLSTMMoS(9, 4, 4, last_size=4)],
        ids=lambda n: type(n),
    )
    def test_temperature_zero_takes_the_likeliest_given_all_before(self, network):
        tokens = torch.tensor([1, 5, 2])
        for token in take(6, network, tokens[:3], temperature=0):
            with torch.no_grad():
                log_probs = network.log_probs(network(tokens[:, None]).hidden[-1, 0])
            assert token == log_probs.argmax()
            tokens = torch.cat((tokens, torch.tensor([token])))
        assert len(tokens) == 9

    def test_the_lowest_temperature_takes_the_likeliest(self):
        network, prompt = GRU(9, 4, 4), torch.tensor([1, 2])
        assert take(6, network, prompt, temperature=1e-300) == take(6, network, prompt, temperature=0)

    @pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3)])
    def test_frequencies(self, temperature, top_k):
        network = GRU(6, 4, 4).eval()
        network.decoder.weight.data.zero_()
        network.decoder.bias.data = torch.tensor([0.0, 1.0, -1.0, 0.5, 0.3, -2.0])
        scores = network.decoder.bias.data / temperature
        if top_k:
            scores[[0, 2, 5]] = -torch.inf
        drawn = torch.tensor(take(4000, network, torch.tensor([0]), temperature=temperature, top_k=top_k, seed=0))
        frequencies = drawn.bincount(minlength=6) / 4000
        torch.testing.assert_close(frequencies, scores.softmax(-1), atol=0.03, rtol=0)

    def test_a_seed_repeats_and_leaves_torchs_generator_alone(self):
        network, prompt = GRU(50, 4, 4), torch.tensor([0])
        before = torch.get_rng_state()
        first = take(20, network, prompt, seed=3)
        assert torch.equal(before, torch.get_rng_state())
        assert take(20, network, prompt, seed=3) == first
        assert take(20, network, prompt, seed=4) != first
        assert take(20, network, prompt) != take(20, network, prompt)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": -1.0}, "Expected a temperature of at least 0, got -1.0"),
            ({"temperature": float("nan")}, "Expected a temperature of at least 0, got nan"),
            ({"top_k": 0}, "Expected top-k between 1 and the vocabulary's 9 tokens, got 0"),
            ({"top_k": 10}, "got 10"),
            ({"prompt": torch.zeros(0, dtype=torch.int64)}, "Expected a prompt of at least one id"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            generate(GRU(9, 4, 4), **{"prompt": torch.tensor([1]), **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with a checkpoint of a model that knows the text by heart."""
    folder = tmp_path_factory.mktemp("run")
    for part in ("train", "valid", "test"):
        (folder / f"{part}.txt").write_text(TEXT * (40 if part == "train" else 2))
    torch.manual_seed(0)
    data = TextDataModule("folder", str(folder), batch_size=2, eval_batch_size=1, bptt=8, cache_dir=str(folder))
    optimizer = {"_target_": "torch.optim.Adam", "lr": 0.02}
    model = LanguageModel({**NETWORK, "hidden_size": 24}, data.vocab_size, optimizer)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "best.ckpt", weights_only=True)
    return folder


class TestCommand:
    def test_goes_on_from_the_prompt(self, run, capsys):
        main([str(run), "--prompt", "the cat sat\n", "--tokens", "10", "--temperature", "0"])
        assert capsys.readouterr().out == "the cat sat\nthe dog ran\na cat ran to the dog\n"

    def test_starts_on_a_new_line_without_one(self, run, capsys):
        main([str(run / "best.ckpt"), "--tokens", "30", "--seed", "1", "--top-k", "3"])
        out = capsys.readouterr().out
        assert out.startswith("\n")
        assert len(out.split()) + out.count("\n") - 2 == 30
        assert set(out.split()) <= set(TEXT.split()) | {"<unk>"}

    def test_writes_each_word_as_it_comes(self, run):
        code = "from lightning_sparse_rnn.commands.generate import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(run), "--tokens", "100000000", "--seed", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout.read(40).split()
        process.stdout.close()
        # Whoever reads only the beginning, as `head` does, sees no traceback.
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""
        process.stderr.close()

    def test_ctrl_c_ends_the_line_and_the_command(self, run, monkeypatch, capsys):
        def broken_off(self, ids):
            yield "the "
            raise KeyboardInterrupt

        monkeypatch.setattr(Vocabulary, "pieces_of_text", broken_off)
        with pytest.raises(SystemExit) as raised:
            main([str(run)])
        assert raised.value.code == 130
        assert capsys.readouterr() == ("the \n", "Interrupted.\n")

    def test_the_text_has_moved(self, run, tmp_path, capsys):
        checkpoint = torch.load(run / "best.ckpt", weights_only=True)
        checkpoint["datamodule_hyper_parameters"]["root"] = str(tmp_path / "gone")
        torch.save(checkpoint, tmp_path / "moved.ckpt")
        options = ["--root", str(run), "--tokens", "3", "--prompt", "the cat sat\n", "--temperature", "0"]
        main([str(tmp_path / "moved.ckpt"), *options])
        assert capsys.readouterr().out == "the cat sat\nthe dog ran\n"

    @pytest.mark.parametrize("options", [[], ["--format", "packed"], ["--format", "packed", "--dtype", "bfloat16"]])
    def test_an_exported_file_writes_what_its_run_writes(self, options, run, tmp_path, capsys):
        saved = torch.load(run / "best.ckpt", weights_only=True)
        for tensor in saved["state_dict"].values():
            if tensor.dim() == 2:
                tensor[tensor.abs() < tensor.abs().quantile(0.5)] = 0.0
        saved["datamodule_hyper_parameters"]["root"] = str(tmp_path / "gone")
        torch.save(saved, tmp_path / "best.ckpt")
        arguments = ["--prompt", "the cat", "--tokens", "12", "--temperature", "0"]
        main([str(tmp_path), *arguments])
        written = capsys.readouterr().out
        export([str(tmp_path), "--output", str(tmp_path / "model"), *options])
        capsys.readouterr()
        main([str(tmp_path / "model"), *arguments])
        assert capsys.readouterr().out == written
        with pytest.raises(SystemExit, match=r"has its vocabulary beside it\. Leave --root out"):
            main([str(tmp_path / "model"), "--root", str(run)])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--prompt", "the Cat flew, the Cat"], "which has no Cat, flew,."),
            (["--tokens", "0"], "Expected --tokens of at least 1, got 0"),
            (["--top-k", "99"], "Expected top-k between 1 and the vocabulary's 9 tokens, got 99"),
        ],
    )
    def test_bad_arguments(self, run, arguments, message):
        with pytest.raises(SystemExit, match=message):
            main([str(run), *arguments])

    def test_another_text(self, run, tmp_path):
        for part in ("train", "valid", "test"):
            (tmp_path / f"{part}.txt").write_text("quite another text\n" * 9)
        with pytest.raises(SystemExit, match=r"with 9 different tokens, got one with 5\. Give its folder with --root"):
            main([str(run), "--root", str(tmp_path)])

    def test_not_a_language_model(self, tmp_path):
        torch.save({"state_dict": {}, "global_step": 0, "hyper_parameters": {"width": 3}}, tmp_path / "other.ckpt")
        with pytest.raises(SystemExit, match="Expected a checkpoint of a LanguageModel trained on a TextDataModule"):
            main([str(tmp_path / "other.ckpt")])

    def test_weights_that_are_not_finite(self, run, tmp_path):
        saved = torch.load(run / "best.ckpt", weights_only=True)
        saved["state_dict"]["network.decoder.bias"][0] = torch.nan
        torch.save(saved, tmp_path / "best.ckpt")
        with pytest.raises(SystemExit, match=r"Expected finite weights, got decoder\.bias with 1 NaN"):
            main([str(tmp_path)])

    def test_no_such_checkpoint(self, tmp_path):
        with pytest.raises(SystemExit, match=r"missing\.ckpt"):
            main([str(tmp_path / "missing.ckpt")])


def by_characters(folder: Path) -> Path:
    """A run's checkpoint whose tokens are characters, and whose text is gone."""
    text = folder / "text"
    text.write_text("abba baab\n" * 60)
    data = TextDataModule("folder", str(text), tokens="characters", cache_dir=str(folder / "cache"))
    model = LanguageModel(NETWORK, data.vocab_size)
    save_checkpoint(folder / "best.ckpt", model, data)
    text.unlink()
    return folder


def test_characters_without_the_text(tmp_path, capsys):
    by_characters(tmp_path)
    main([str(tmp_path), "--prompt", "ab b", "--tokens", "40", "--seed", "1"])
    out = capsys.readouterr().out
    assert out.startswith("ab b")
    assert set(out.replace("<unk>", "")) <= set("ab \n")
    main([str(tmp_path), "--prompt", "  ", "--tokens", "1", "--seed", "1"])
    assert re.match(r"  [ab \n<]", capsys.readouterr().out)  # spaces are characters, and no line of their own
    with pytest.raises(SystemExit, match=r"Expected a prompt of characters from the training text, which has no x\."):
        main([str(tmp_path), "--prompt", "abx"])


def test_a_prompt_from_standard_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("abba\nba"))
    main([str(by_characters(tmp_path)), "--prompt", "-", "--tokens", "1", "--seed", "1"])
    assert capsys.readouterr().out.startswith("abba\nba")
