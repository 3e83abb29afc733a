"""Fingerprint of the code that computes a number: another one may mean another number."""

from __future__ import annotations

from functools import lru_cache

from retemper import inputs, sources
from retemper.files import digest
from retemper.robustness import calculators

FOLLOWED = "retemper.robustness."
# Modules that carry numbers without deciding them, or whose part stands in a task's arguments.
CARRIERS = frozenset(f"{FOLLOWED}{name}" for name in ("calculators", "context", "engine", "outcome", "stats", "units"))


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
