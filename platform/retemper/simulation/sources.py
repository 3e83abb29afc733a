"""Fingerprint of the code that computes a number: another one may mean another number."""

from __future__ import annotations

from functools import lru_cache

from retemper.core import sources
from retemper.core.files import digest
from retemper.models import evaluators as calculators
from retemper.prepare import inputs

FOLLOWED = ("retemper.evaluation.robustness.", "retemper.simulation.")
# Modules that carry numbers without deciding them, or whose part stands in a task's arguments.
CARRIERS = frozenset(
    f"retemper.{name}"
    for name in (
        "evaluation.robustness.context",
        "evaluation.robustness.result",
        "evaluation.robustness.statistics",
        "evaluation.robustness.units",
        "simulation.engine",
    )
)


@lru_cache
def fingerprint(module: str) -> str:
    """Hash of a module's statements and of those of the suite's modules that it imports, whole."""
    names = sources.closure([module], lambda name: name.startswith(FOLLOWED) and name not in CARRIERS)
    limits = [calculators.MIN_VOLUME, calculators.SMALLEST_HEIGHT]  # of cells that are computed at all
    return digest([[(name, sources.statements(name)) for name in names], limits])


@lru_cache
def evaluators() -> str:
    """Hash of the code that computes energies and forces, whatever asks for them."""
    return digest(inputs.code([calculators.__name__]))
