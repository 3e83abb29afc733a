"""You label: the structures are written out, and `retemper round --resume` takes the labels back."""

from __future__ import annotations

from retemper.config.settings import Section

MANUAL = True


class Options(Section):
    level_of_theory: str  # what the labels will be called


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory
