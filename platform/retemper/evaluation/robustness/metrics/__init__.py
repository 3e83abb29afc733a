"""The metrics: one file each; its stem is the metric's name.

A metric has ``INFO``, ``SIZES`` (keyword arguments of its protocol by level), ``plan(context)``
that gives its tasks, and ``measure(context, results)`` that gives what it `Found`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from retemper.core.errors import unknown


def names() -> list[str]:
    """All metrics: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The module of a metric; an unknown name lists the options."""
    if name not in names():
        raise unknown("metric", name, names())
    return importlib.import_module(f"{__name__}.{name}")


def chosen(asked: list[str]) -> list[str]:
    """The metrics that a list of names means; "all" is every one."""
    if asked == ["all"]:
        return names()
    for name in asked:
        load(name)
    return list(dict.fromkeys(asked))
