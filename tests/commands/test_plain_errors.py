"""What the train command says of a mistake: what was expected, and nothing of the program's insides."""

import signal
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate

from lightning_sparse_rnn.commands.plain_errors import interruptible, told_plainly, whole_imports
from lightning_sparse_rnn.commands.train import main
from lightning_sparse_rnn.commands.unknown_options import options_of
from lightning_sparse_rnn.models import AWDLSTM
from lightning_sparse_rnn.runs.jobs import RunInterrupted

MISTAKES = {
    "prune_rate=2": "Expected `prune_rate` in [0, 1), got 2. Did you mean 0.02?",
    "model.network.dropout=2": "Expected `dropout` in [0, 1), got 2. Did you mean 0.02?",
    "+model.network.fused_cell=1": "StackedLSTM has no option fused_cell. Did you mean fused_cells? It takes "
    "vocab_size, embedding_size, hidden_size, num_layers, dropout, tied, fused_cells, dropout_inp",
    "+optimizer.betas=[0,1]": "SNTASGD has no option betas. It takes params, lr, weight_decay, ",
    "+method.growht=random": "SelfishSparseCallback has no option growht. Did you mean growth? It takes ",
    "+data.vocabulary=3": "TextDataModule has no option vocabulary.",
    "optimizer.lr=abc": "Expected `lr` to be a number, got 'abc'.",
    "data=folder": "Expected a value for data.root, got none.",
    "data.bptt=3.5": "Expected `bptt` to be a whole number of at least 1, got 3.5.",
    "model.network.hidden_size=4.5": "Expected `hidden_size` to be a whole number of at least 1, got 4.5.",
    "+trainer.limit_test_batches=0": "Expected trainer.limit_test_batches of more than 0, got 0: a run trains, and",
    "callbacks.best.monitor=train_loss": "Expected callbacks.best.monitor=val_loss, got train_loss: a run's validation",
    "+trainer.limit_train_batches=0": "Expected trainer.limit_train_batches of more than 0, got 0: a run trains",
    "+trainer.limit_val_batches=0": "Expected trainer.limit_val_batches of more than 0, got 0: a run trains, and",
    "+trainer.fast_dev_run=true": "Expected no trainer.fast_dev_run: it keeps no weights that could be tested.",
    "+trainer.max_time=90": "Expected trainer.max_time as DD:HH:MM:SS, or as a dict such as {minutes: 90}, got 90.",
    "trainer.max_epochs=0": "Expected trainer.max_epochs of at least 1, or of -1 for a run without that limit, got 0.",
    "+callbacks.averaging.restart_epochs=3": "Expected `restart_epochs` as a list of epochs, such as [30], got 3.",
    "data.batch_size=100000": "Expected a text of at least 200000 tokens, two for each of 100000 columns",
    "data.train_lines=1000000": "Expected `train_lines` between 1 and the ",
    "trainer.max_epochs=-1": "set `max_epochs` or `max_steps`, or take `schedule='constant'`.",
    "seed=one": "Expected `seed` to be a whole number of at least 0, got 'one'.",
    "trainer.max_epochs=three": "Expected `trainer.max_epochs` to be a whole number of at least -1, got 'three'.",
    "name=a/b": "Expected name to be one that a folder can have, without / and \\, with no dot in front and of at most "
    "255 bytes, got 'a/b'. Where runs go is output=FOLDER.",
    "model.network.tied=no": "Expected `tied` to be true or false, got 'no'.",
    "trainer.enable_progress_bar=no": "Expected `trainer.enable_progress_bar` to be true or false, got 'no'.",
    "+trainer.accumulate_grad_batches=0": "Expected `trainer.accumulate_grad_batches` to be a whole number of at leas",
    "data.root=": "Expected a value in data.root=, got nothing. Is a variable of the shell not set?",
    "init_from=nowhere": "There is no checkpoint nowhere.",
    "method.growth=nowhere.rule": "Cannot import `growth` 'nowhere.rule': No module named 'nowhere'.",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_told_by_its_message_alone(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model.network.embedding_size=4", "model.network.hidden_size=4", "trainer.accelerator=cpu"]
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["sparse-rnn-train", f"output={tmp_path}", *small, override])
    with pytest.raises(SystemExit) as raised:
        main()
    assert not list(tmp_path.iterdir())  # there is no run, nor a folder of one
    message, hint = str(raised.value).splitlines()
    assert message.startswith("sparse-rnn-train: ")
    assert MISTAKES[override] in message
    assert hint == "(HYDRA_FULL_ERROR=1 shows where in the program this came up.)"
    assert "Traceback" not in capsys.readouterr().err


def test_a_failed_download_is_told_by_its_message_alone() -> None:
    with pytest.raises(SystemExit, match=r"command: Could not download"), told_plainly("command"):
        raise ConnectionError("Could not download")


def test_a_class_that_is_not_there_is_told_by_its_message_alone() -> None:
    with pytest.raises(SystemExit, match=r"command: Error loading 'math\.sqrt\.nothing'"), told_plainly("command"):
        instantiate({"_target_": "math.sqrt.nothing"})


def takes_all(first, **others): ...


class Base:
    def __init__(self, first, *, second=0): ...


class Derived(Base):
    def __init__(self, third, *more, **options): ...


class Unsaid:
    def __init__(self, first, **options): ...


def test_options_are_those_of_all_classes_that_they_are_passed_on_to() -> None:
    assert options_of(Derived) == ["third", "first", "second"]
    assert options_of(Base) == ["first", "second"]
    assert options_of(options_of) == ["made"]
    for unsaid in (Unsaid, takes_all, dict):
        assert options_of(unsaid) is None
    assert options_of(AWDLSTM)[:2] == ["vocab_size", "embedding_size"]
    assert {"weight_drop", "dropout_between", "decoder_size"} < set(options_of(AWDLSTM))


def test_an_option_of_something_deeper_inside_is_told_as_python_has_it() -> None:
    said = r"command: options_of\(\) got an unexpected keyword argument 'second'"
    with pytest.raises(SystemExit, match=said), told_plainly("command"):
        instantiate({"_target_": f"{__name__}.deeper", "first": 1})


def deeper(first, second=2):
    options_of(second=first)


def test_ctrl_c_counts_when_the_imports_are_over() -> None:
    done = []

    def interrupted() -> None:
        with whole_imports():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with whole_imports():
        pass


def lightnings_way_out() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def test_whatever_becomes_of_ctrl_c_it_is_one_line_and_one_status(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def by_a_run() -> None:
        raise RunInterrupted("Interrupted. It goes on.")

    for ends, said in (
        (interrupted, "Interrupted.\n"),
        (by_a_run, "Interrupted. It goes on.\n"),
        (lightnings_way_out, "Interrupted.\n"),
    ):
        with pytest.raises(SystemExit) as raised:
            interruptible()(ends)()
        assert raised.value.code == 130
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("code", [0, 1, "A message.", None])
def test_a_command_that_ends_by_itself_keeps_its_status(code: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised, interruptible():
        sys.exit(code)  # type: ignore[arg-type]
    assert raised.value.code == code
    assert capsys.readouterr().err == ""


def test_everything_is_shown_on_demand_and_other_errors_always(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="ours"), told_plainly("command"):
        raise TypeError("ours")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="yours"), told_plainly("command"):
        raise ValueError("yours")
