"""The units that users choose from, in eV and Angstrom."""

from __future__ import annotations

from ase import units

from retemper.core.errors import unknown

ENERGY_UNITS = {  # in eV
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": units.Hartree,
    "Ry": units.Rydberg,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
}
LENGTH_UNITS = {"Angstrom": 1.0, "Bohr": units.Bohr, "nm": 10.0}  # in Angstrom
STRESS_UNITS = {  # in eV/A^3
    "eV/A^3": 1.0,
    "GPa": units.GPa,
    "kbar": 0.1 * units.GPa,
    "Hartree/Bohr^3": units.Hartree / units.Bohr**3,
    "kcal/mol/A^3": units.kcal / units.mol,
}


def energy_factor(name: str) -> float:
    """Electronvolts in one energy unit; the name's case does not count."""
    return _factor("energy_unit", name, ENERGY_UNITS)


def length_factor(name: str) -> float:
    """Angstroms in one length unit; the name's case does not count."""
    return _factor("length_unit", name, LENGTH_UNITS)


def _factor(setting: str, name: str, table: dict[str, float]) -> float:
    for option, factor in table.items():
        if option.lower() == name.strip().lower():
            return factor
    raise unknown(f"unit in dataset.{setting}", name, table)
