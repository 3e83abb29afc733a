"""Any ASE calculator by its import path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms

from retemper.active.state import State
from retemper.errors import RetemperError
from retemper.settings import Section


class Options(Section):
    calculator: str  # package.module:Class(keyword=value), for example ase.calculators.emt:EMT()
    level_of_theory: str  # what its labels are called


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """The calculator; it knows nothing of charge and spin, so structures that have them are refused."""
    from retemper.robustness.calculators import create

    if state.charge or (state.given and state.multiplicity > 2):
        raise RetemperError(
            "The oracle `ase` cannot pass charge and spin on.",
            got=f"charge {state.charge}, multiplicity {state.multiplicity}",
            fix="use the oracle of that code, or a calculator of your own that reads atoms.info",
        )
    return create(options.calculator)
