"""Nested configs as flat lists, and what differs between two."""

from lightning_sparse_rnn.runs.flat_config import differences, flat


def test_flat_dots_the_keys_and_keeps_empty_groups() -> None:
    config = {"seed": 1, "data": {"bptt": 35, "more": {"root": None}}, "list": [{"a": 1}], "empty": {}}
    assert list(flat(config)) == [
        ("seed", 1),
        ("data.bptt", 35),
        ("data.more.root", None),
        ("list", [{"a": 1}]),
        ("empty", {}),
    ]


def test_differences_name_every_changed_value() -> None:
    old = {"seed": 1, "data": {"bptt": 35, "root": None}, "gone": 2}
    new = {"seed": 1, "data": {"bptt": 70, "root": None}, "come": [3]}
    assert differences(old, new) == ["come: absent, now [3]", "data.bptt: 35, now 70", "gone: 2, now absent"]
    assert differences(old, old) == []
