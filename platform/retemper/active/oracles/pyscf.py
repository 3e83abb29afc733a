"""Density functional theory for molecules by PySCF (Gaussian basis sets), restricted or unrestricted by spin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from pydantic import Field

from retemper.config.settings import Section
from retemper.core import software
from retemper.core.errors import RetemperError
from retemper.core.software import Ingredients
from retemper.data.charge import State


class Options(Section):
    xc: str = "PBE"
    basis: str = "def2-SVP"
    density_fit: bool = False  # resolution of identity: faster, another number in the sixth digit
    grid: int = Field(3, ge=0, le=9)
    max_cycle: int = Field(100, ge=1)
    memory: int = 4000  # MB


def level(options: Options) -> str:
    """Functional and basis set."""
    return f"{options.xc}/{options.basis}"


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The version of PySCF, and a file of basis functions where one is named."""
    return {**software.packages("pyscf"), "files": software.files(options.basis)}


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """Energy and analytic gradient."""
    if atoms.pbc.any():
        raise RetemperError("The oracle pyscf is for molecules.", got="a periodic structure")
    return PySCF(options, state)


class PySCF(Calculator):
    """One self-consistent field calculation for each structure; one that does not converge raises."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, options: Options, state: State):
        super().__init__()  # type: ignore[no-untyped-call]
        self.options, self.state = options, state

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        from pyscf import dft, gto

        assert self.atoms is not None
        options = self.options
        molecule = gto.M(
            atom=list(zip(self.atoms.symbols, self.atoms.positions.tolist(), strict=True)),
            unit="Angstrom",
            basis=options.basis,
            charge=self.state.charge,
            spin=self.state.multiplicity - 1,
            max_memory=options.memory,
            verbose=0,
        )
        field = dft.RKS(molecule) if self.state.multiplicity == 1 else dft.UKS(molecule)
        field.xc, field.max_cycle, field.grids.level = options.xc, options.max_cycle, options.grid
        if options.density_fit:
            field = field.density_fit()
        energy = field.kernel()
        if not field.converged:
            raise RuntimeError(f"not self-consistent after {options.max_cycle} cycles")
        gradient = field.nuc_grad_method().kernel()
        self.results = {"energy": float(energy) * units.Hartree, "forces": -gradient * units.Hartree / units.Bohr}
