"""CP2K through its shell (`cp2k_shell`, or `cp2k.psmp -s`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms

from retemper.config.settings import Section
from retemper.core import software
from retemper.core.software import Ingredients
from retemper.data.charge import State


class Options(Section):
    level_of_theory: str  # what its labels are called
    command: str = "cp2k.psmp -s"
    parameters: dict[str, Any] = {}  # of ase.calculators.cp2k.CP2K: xc, basis_set, cutoff (eV), inp (template), ...


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The program, and files of basis sets and potentials that are named by their path."""
    return {**software.program(options.command), "files": software.files(options.parameters)}


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """Charge and multiplicity are those of the structure; stress where it is periodic."""
    from ase.calculators.cp2k import CP2K

    settings = {"charge": state.charge, "stress_tensor": bool(atoms.pbc.all())}
    if state.multiplicity > 1:
        settings |= {"multiplicity": state.multiplicity, "uks": True}
    return CP2K(command=options.command, label=str(folder / "cp2k"), **{**options.parameters, **settings})
