"""Quantum ESPRESSO's pw.x."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms

from retemper.active.state import State
from retemper.settings import Section


class Options(Section):
    level_of_theory: str  # what its labels are called
    pseudo_dir: str
    pseudopotentials: dict[str, str]  # file by element
    command: str = "pw.x"
    input_data: dict[str, Any] = {}  # namelists: {system: {ecutwfc: 60}, electrons: {conv_thr: 1.0e-9}}
    kspacing: float | None = None  # 1/A; null: the Gamma point


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """One point with forces and stress; charge and moment are those of the structure."""
    from ase.calculators.espresso import Espresso, EspressoProfile

    data = {name: dict(values) for name, values in options.input_data.items()}
    data["control"] = {**data.get("control", {}), "calculation": "scf", "tprnfor": True, "tstress": True}
    data["control"] |= {"outdir": str(folder / "out"), "disk_io": "none"}
    system = {"tot_charge": state.charge}
    if state.multiplicity > 1:
        system |= {"nspin": 2, "tot_magnetization": state.multiplicity - 1}
    data["system"] = {**data.get("system", {}), **system}
    return Espresso(
        profile=EspressoProfile(command=options.command, pseudo_dir=options.pseudo_dir),
        directory=folder,
        input_data=data,
        pseudopotentials=options.pseudopotentials,
        kspacing=options.kspacing,
    )
