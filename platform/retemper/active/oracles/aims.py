"""FHI-aims."""

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
    species_dir: str  # folder of the species' defaults: .../species_defaults/defaults_2020/light
    command: str = "aims.x"
    parameters: dict[str, Any] = {}  # of control.in: xc, relativistic, k_grid_density, sc_accuracy_rho, ...


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The program, and the defaults of the species of `atoms`."""
    names = {f"{z:02d}_{symbol}_default" for z, symbol in zip(atoms.numbers, atoms.symbols, strict=True)}
    folder = Path(options.species_dir)
    return {**software.program(options.command), "files": software.files([str(folder / name) for name in names])}


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """One point with forces, and stress where it is periodic; charge and moment are those of the structure.

    A cell that names no multiplicity has the spin of `parameters`, a molecule the lowest.
    """
    from ase.calculators.aims import Aims, AimsProfile

    settings: dict[str, str | int] = {"charge": state.charge, "compute_forces": True}
    if state.multiplicity > 1 and (state.given or not atoms.pbc.any()):  # a cell of an odd number has no known moment
        settings |= {"spin": "collinear", "fixed_spin_moment": state.multiplicity - 1}
    if atoms.pbc.all():
        settings["compute_analytical_stress"] = True
    profile = AimsProfile(command=options.command, default_species_directory=options.species_dir)
    return Aims(profile=profile, directory=folder, **{**options.parameters, **settings})
