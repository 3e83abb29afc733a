"""The metrics: one file each; its stem is the metric's name.

A metric has ``INFO``, ``SIZES`` (keyword arguments of its protocol by level), ``USES`` (what decides it),
``plan(context)`` that gives its tasks under keys of its choice, and ``measure(context, results)`` that takes their
results under the same keys and gives a `Result`. The shortest to begin from is `cost`.
"""

from __future__ import annotations

from types import ModuleType

from retemper.config.metric_names import SUITE
from retemper.core import plugins


def names() -> list[str]:
    """All metrics: the files of this folder."""
    return plugins.names(SUITE)


def load(name: str) -> ModuleType:
    """The module of a metric; an unknown name lists the options."""
    return plugins.load(SUITE, name, "metric")


def resolve(entries: list[str]) -> list[str]:
    """The metrics that a list of names means; "all" is every one."""
    if entries == ["all"]:
        return names()
    for name in entries:
        load(name)
    return list(dict.fromkeys(entries))
