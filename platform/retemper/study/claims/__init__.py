"""The paper's findings as tests on a results table: one file each.

A claim has ``CLAIM`` (the sentence), ``PAPER`` (where arXiv:2606.12704 says it), its rule as docstring, and
``judge(table, confidence)`` that gives a `Judgement`: shown, refuted, or undecided.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from retemper.core import plugins

if TYPE_CHECKING:
    import pandas as pd

    from retemper.study.verdicts import Judgement


def names() -> list[str]:
    """All claims: the files of this folder."""
    return plugins.names("study.claims")


def load(name: str) -> ModuleType:
    """The module of a claim; an unknown name lists the options."""
    return plugins.load("study.claims", name, "claim")


def judgements(table: pd.DataFrame, confidence: float = 0.95) -> dict[str, Judgement]:
    """Every claim on a table."""
    return {name: load(name).judge(table, confidence) for name in names()}
