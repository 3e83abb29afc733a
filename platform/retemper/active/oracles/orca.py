"""ORCA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms

from retemper.config.settings import Section
from retemper.core import software
from retemper.core.errors import RetemperError
from retemper.core.software import Ingredients
from retemper.data.charge import State


class Options(Section):
    level_of_theory: str  # what its labels are called
    simple_input: str  # for example "wB97X-D3 def2-TZVP TightSCF"
    command: str = "orca"  # its full path, for ORCA's own parallel runs
    blocks: str = "%pal nprocs 1 end"


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The program, and files that the blocks name in quotes (basis sets)."""
    return {**software.program(options.command), "files": software.files(options.blocks.split('"'))}


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """Energy and gradient; charge and multiplicity are those of the structure."""
    from ase.calculators.orca import ORCA, OrcaProfile

    if atoms.pbc.any():
        raise RetemperError("The oracle orca is for molecules.", got="a periodic structure")
    words = options.simple_input.split()
    if "engrad" not in [word.lower() for word in words]:
        words.append("EnGrad")
    return ORCA(
        profile=OrcaProfile(command=options.command),
        directory=folder,
        charge=state.charge,
        mult=state.multiplicity,
        orcasimpleinput=" ".join(words),
        orcablocks=options.blocks,
    )
