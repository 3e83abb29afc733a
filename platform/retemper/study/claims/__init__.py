"""The paper's findings as tests on a results table: one file each.

A claim has ``CLAIM`` (the sentence), ``PAPER`` (where arXiv:2606.12704 says it), its rule as docstring, and
``judge(table, confidence)`` that gives a `Judgement`: shown, refuted, or undecided.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from retemper.core.errors import unknown

if TYPE_CHECKING:
    import pandas as pd

    from retemper.study.verdicts import Judgement


def names() -> list[str]:
    """All claims: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The module of a claim; an unknown name lists the options."""
    if name not in names():
        raise unknown("claim", name, names())
    return importlib.import_module(f"{__name__}.{name}")


def judged(table: pd.DataFrame, confidence: float = 0.95) -> dict[str, Judgement]:
    """Every claim on a table."""
    return {name: load(name).judge(table, confidence) for name in names()}
