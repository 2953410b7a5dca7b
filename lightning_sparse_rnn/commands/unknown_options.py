"""What is said of an option that a class does not take: which class, what is near, and what it takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object

from lightning_sparse_rnn.runs.config_checks import near

__all__ = ["of_unknown_option", "options_of"]


def of_unknown_option(error: InstantiationException) -> str | None:
    """Return a sentence on the option that something was to be made with; ``None`` if the error is another one.

    Python names the class that defines ``__init__``, which may be one that the user has never heard of.
    """
    target = re.search(r"Error in call to target '([^']+)'", str(error))
    option = re.search(r"got an unexpected keyword argument '([^']+)'", str(error.__cause__))
    if target is None or option is None:
        return None
    made, name = get_object(target.group(1)), option.group(1)  # Hydra has just called it
    options = options_of(made)
    if options is None or name in options:  # it has come to something deeper inside
        return None
    return f"{made.__name__} has no option {name}.{near(name, options)} It takes {', '.join(options)}."


def options_of(made: Callable[..., Any]) -> list[str] | None:
    """Return the names of the arguments that a class or function takes; ``None`` if it does not say.

    What ``__init__`` of a class passes on as ``**options`` is taken by the next of its base classes.
    """
    found: dict[str, None] = {}
    classes = made.__mro__ if inspect.isclass(made) else ()
    inits = [vars(each)["__init__"] for each in classes if "__init__" in vars(each)]
    for function in inits or [made]:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # it is not written in Python
            return None
        own = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        found.update(dict.fromkeys(each.name for each in own if each.name != "self"))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return list(found)
    return None
