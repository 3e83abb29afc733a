"""Any ASE calculator by its import path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms
from pydantic import SerializerFunctionWrapHandler, model_serializer

from retemper.config.settings import Section
from retemper.core.errors import RetemperError
from retemper.core.software import Ingredients
from retemper.data.charge import State


class Options(Section):
    calculator: str  # package.module:Class(keyword=value), for example ase.calculators.emt:EMT()
    level_of_theory: str  # what its labels are called
    reads_info: bool = False  # whether it takes info["charge"] and info["spin"] (multiplicity) from its atoms

    @model_serializer(mode="wrap")
    def _without_default(self, dump: SerializerFunctionWrapHandler) -> dict[str, str | bool]:
        """Labels are found by their oracle's options: those that were made before this one stay valid."""
        content: dict[str, str | bool] = dump(self)
        if not self.reads_info:
            del content["reads_info"]
        return content


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """Packages and sources of the calculator, and the files that its keywords name."""
    from retemper.models.calculator import ingredients

    return ingredients(options.calculator)


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """The calculator; structures with charge and spin are refused unless it reads them."""
    from retemper.models.calculator import create

    if not options.reads_info and (state.charge or (state.given and state.multiplicity > 2)):
        raise RetemperError(
            "The calculator of the oracle `ase` is not said to know charge and spin.",
            got=f"charge {state.charge}, multiplicity {state.multiplicity}",
            fix="set its option reads_info if it takes info['charge'] and info['spin'] from the atoms; "
            "else use the oracle of that code",
        )
    return create(options.calculator)
