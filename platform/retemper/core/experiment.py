"""A DVC experiment (`dvc exp run`) registers and promotes nothing: it may never be kept, and registries do not go back.

Its stages ``register`` and ``promote`` say so in their outputs. Once the experiment is applied, they run again.
"""

from __future__ import annotations

import os


def name() -> str | None:
    """Of the experiment that this process belongs to; `None` outside one."""
    return os.environ.get("DVC_EXP_NAME")


def keep(experiment: str) -> str:
    """How an experiment is kept, in words."""
    return f"The experiment {experiment} registers and promotes nothing: dvc exp apply {experiment}, dvc repro."
