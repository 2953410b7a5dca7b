"""What is said where a module of an extra is missing."""

import pytest

from lightning_sparse_rnn.utilities.extras import extra


def test_a_missing_module_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(ModuleNotFoundError) as raised, extra("report", "The picture"):
        import no_such_module  # noqa: F401
    said = "The picture needs no_such_module. Install it with: pip install 'lightning-sparse-rnn[report]'"
    assert (str(raised.value), raised.value.name) == (said, "no_such_module")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), extra("report", "The picture"):
        raise ZeroDivisionError
