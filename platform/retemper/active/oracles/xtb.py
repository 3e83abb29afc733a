"""GFN1-xTB or GFN2-xTB by tblite: seconds a structure; for cells it sees the Gamma point alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from pydantic import Field

from retemper.config.settings import Section
from retemper.core import software
from retemper.core.errors import RetemperError
from retemper.core.software import Ingredients
from retemper.data.charge import State
from retemper.data.geometry import heights


class Options(Section):
    method: Literal["GFN2-xTB", "GFN1-xTB"] = "GFN2-xTB"
    accuracy: float = 1.0  # of the self-consistent charges: smaller is tighter
    min_height: float = Field(8.5, ge=0)  # A; lower cells need more than the Gamma point and are refused


def level(options: Options) -> str:
    """What the labels are called."""
    return options.method


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The version of tblite."""
    return software.packages("tblite")


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """A fresh calculator: no label depends on the one before."""
    from retemper.systems.xtb import calculator as tblite

    if atoms.pbc.any() and heights(atoms.cell.array)[atoms.pbc].min() < options.min_height:
        raise RetemperError(f"The cell is below {options.min_height:g} A: xTB sees the Gamma point alone.")

    return tblite(state.multiplicity, charge=state.charge, method=options.method, accuracy=options.accuracy)
