"""Quantum ESPRESSO's pw.x."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms
from pydantic import model_validator

from retemper.config.settings import Section
from retemper.core import software
from retemper.core.software import Ingredients
from retemper.data.charge import State

START = "starting_magnetization"


class Options(Section):
    level_of_theory: str  # what its labels are called
    pseudo_dir: str
    pseudopotentials: dict[str, str]  # file by element
    command: str = "pw.x"
    # namelists: {system: {ecutwfc: 60, nspin: 2, starting_magnetization: {Fe: 0.5}}, electrons: {conv_thr: 1.0e-9}}
    input_data: dict[str, Any] = {}
    kspacing: float | None = None  # 1/A; null: the Gamma point

    @model_validator(mode="after")
    def _by_element(self) -> Options:
        """ASE numbers the species anew in every input, and starts those without a moment at 0."""
        system = self.input_data.get("system", {})
        numbered = [name for name in system if name.startswith(f"{START}(")]
        if numbered:
            raise ValueError(f"{numbered[0]}: give {START} by element, for example {{{START}: {{Fe: 0.5}}}}")
        return self


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The program, and the pseudopotentials of the elements of `atoms`."""
    names = [file for symbol, file in options.pseudopotentials.items() if symbol in atoms.symbols]
    paths = [str(Path(options.pseudo_dir) / name) for name in names]
    return {**software.program(options.command), "files": software.files(paths)}


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """One point with forces and stress; charge is the structure's, moment too where it names its multiplicity."""
    from ase.calculators.espresso import Espresso, EspressoProfile

    class Started(Espresso):  # type: ignore[misc]
        """With the magnetisation that the settings start each element with."""

        def write_inputfiles(self, atoms: Atoms, properties: Any) -> None:
            copy = atoms.copy()
            copy.set_initial_magnetic_moments([start.get(symbol, 0.0) for symbol in atoms.symbols])
            super().write_inputfiles(copy, properties)  # type: ignore[no-untyped-call]

    data = {name: dict(values) for name, values in options.input_data.items()}
    data["control"] = {**data.get("control", {}), "calculation": "scf", "tprnfor": True, "tstress": True}
    data["control"] |= {"outdir": str(folder / "out"), "disk_io": "none"}
    system = {**data.get("system", {}), "tot_charge": state.charge}
    start = system.pop(START, {})
    if state.given and state.multiplicity > 1:
        system |= {"nspin": 2, "tot_magnetization": state.multiplicity - 1}
    data["system"] = system
    return Started(  # type: ignore[no-untyped-call]
        profile=EspressoProfile(command=options.command, pseudo_dir=options.pseudo_dir),
        directory=folder,
        input_data=data,
        pseudopotentials=options.pseudopotentials,
        kspacing=options.kspacing,
    )
