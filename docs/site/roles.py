"""Docstrings say :class:`SNTASGD`, as editors and Sphinx read it; on the site it becomes a link."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([^`]+)`")


class Roles(griffe.Extension):
    """Rewrites roles into the links of mkdocs-autorefs, or into plain code where the site has no such page."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(lambda role: _link(obj, role[2], bool(role[1])), obj.docstring.value)


def _link(obj: griffe.Object, name: str, short: bool) -> str:
    shown = name.rsplit(".", 1)[-1] if short else name
    try:
        path = name if "." in name else obj.resolve(name)
    except griffe.NameResolutionError:
        return f"`{shown}`"
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
