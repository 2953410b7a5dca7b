"""Whatever is written for a command line, Hydra reads back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_sparse_rnn.runs.quoting import written

VALUES = [
    *(True, None, 3, -2, 0.1, 1e-5, 1e20, math.inf, -math.inf),
    *("", " a ", "a,b", "a:b", "a=b", "it's", "\\", "a\\'b", "a\n", "a\\\n", "${x}", "[a]", "\t", "übung", "http://x"),
    *("None", "TRUE", "null", "Infinity", "nan", "1_000", "1e3", "0x1", "+inf"),
    *(["a:b", 1, [True]], {"*weight": 0.1}, {"l0.weight": ["a", "b"]}, {"a b": 1}, {"?": {"x": None}}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_read_back(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={written(value)}")
    assert override.value() == value
    assert not override.is_sweep_override()


@pytest.mark.parametrize("key", ["a:b", "", "true", " a", "a,b"])
def test_a_key_that_no_command_line_says_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="No command line says"):
        written({key: 1})
