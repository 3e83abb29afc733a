"""The combinations of units that occur in practice, in terms of the declared one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retemper.data.units.conversion import ENERGY_UNITS, LENGTH_UNITS, energy_factor, length_factor

RARE = {"meV": 3.0, "Ry": 1.0}  # chi squared against units that few codes write
PER_ATOM = 2.0  # against energies per atom
MIXED, ODD_MIX = 3.0, 5.0  # against two units of energy; and where neither is eV, or one is Ry
UNNATURAL = 6.0  # against a length that no code writes with this energy
NATURAL = {("Hartree", "Bohr"), ("Ry", "Bohr"), ("kJ/mol", "nm")} | {(name, "Angstrom") for name in ENERGY_UNITS}


@dataclass(frozen=True)
class Combination:
    """Units of energies and forces, and what turns labels read as declared into eV and eV/A.

    Attributes
    ----------
    energy, per_atom
        Unit of the energies, and whether they are energies per atom.
    force_energy, force_length
        Unit of the forces: energy over length.
    log_energy, log_force
        ln of the factor by which energies (per atom or not) and forces are too small.
    penalty
        Chi squared against a combination that few codes write.
    """

    energy: str
    per_atom: bool
    force_energy: str
    force_length: str
    log_energy: float
    log_force: float
    penalty: float

    @property
    def energies(self) -> str:
        """Unit of the energies in words."""
        return self.energy + (" per atom" if self.per_atom else "")

    @property
    def forces(self) -> str:
        """Unit of the forces in words."""
        return f"{self.force_energy}/{ {'Angstrom': 'A'}.get(self.force_length, self.force_length) }"

    @property
    def as_declared(self) -> bool:
        """Whether it leaves the labels as they are."""
        return self.log_energy == 0 and self.log_force == 0 and not self.per_atom

    def __str__(self) -> str:
        return f"energies in {self.energies} and forces in {self.forces}"

    def same(self, other: Combination) -> bool:
        """Whether both make the same labels within a tenth."""
        close = (abs(self.log_energy - other.log_energy) < 0.1, abs(self.log_force - other.log_force) < 0.1)
        return all(close) and self.per_atom == other.per_atom


def combinations(energy_unit: str, length_unit: str) -> list[Combination]:
    """Every combination of units, the declared one first and without a penalty."""
    energy, force = energy_factor(energy_unit), energy_factor(energy_unit) / length_factor(length_unit)
    rows = [Combination(energy_unit, False, energy_unit, length_unit, 0.0, 0.0, 0.0)]
    for name, factor in ENERGY_UNITS.items():
        for per_atom in (False, True):
            for force_name, force_energy in ENERGY_UNITS.items():
                for length, length_value in LENGTH_UNITS.items():
                    log_energy = _log(factor / energy)
                    log_force = _log(force_energy / length_value / force)
                    penalty = RARE.get(name, 0.0) + (PER_ATOM if per_atom else 0.0)
                    penalty += 0.0 if (force_name, length) in NATURAL else UNNATURAL
                    if force_name != name:
                        usual = "eV" in (name, force_name) and "Ry" not in (name, force_name)
                        penalty += (MIXED if usual else ODD_MIX) + RARE.get(force_name, 0.0)
                    row = Combination(name, per_atom, force_name, length, log_energy, log_force, penalty)
                    if not row.as_declared:
                        rows.append(row)
    return rows


def _log(ratio: float) -> float:
    return 0.0 if math.isclose(ratio, 1.0) else math.log(ratio)
