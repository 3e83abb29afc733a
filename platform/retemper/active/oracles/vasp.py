"""VASP. The environment gives the pseudopotentials (VASP_PP_PATH), as for ASE."""

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
    command: str = "vasp_std"
    parameters: dict[str, Any] = {}  # of ase.calculators.vasp.Vasp: xc, encut, ismear, sigma, ediff, kspacing, setups


def level(options: Options) -> str:
    """What the labels are called."""
    return options.level_of_theory


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The program, and the pseudopotentials (POTCAR) that ASE finds for `atoms`."""
    return {**software.program(options.command), "files": software.files(_pseudopotentials(options, atoms))}


def _pseudopotentials(options: Options, atoms: Atoms) -> list[str]:
    """Their paths; none where ASE finds none: then the label says why."""
    from ase.calculators.vasp import Vasp

    try:
        maker = Vasp(command=options.command, **options.parameters)
        maker.initialize(atoms)
    except Exception:  # of any kind; it comes again where the label is computed, and is its reason there
        return []
    return [str(path) for path in maker.ppp_list]


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """One point: no ionic steps, forces and stress. Open shells are spin-polarised with that moment."""
    from ase.calculators.vasp import Vasp

    if state.charge:
        raise RetemperError(
            "The oracle vasp labels neutral cells only: a charge depends on the pseudopotentials' electrons.",
            got=f"charge {state.charge}",
            fix="use the oracle `ase` with reads_info and a calculator of your own, which gives `nelect`",
        )
    settings = {"nsw": 0, "ibrion": -1, "isif": 2, "lwave": False, "lcharg": False}
    if state.given and state.multiplicity > 1:
        settings |= {"ispin": 2, "nupdown": state.multiplicity - 1}
    return Vasp(directory=str(folder), command=options.command, **{**options.parameters, **settings})
