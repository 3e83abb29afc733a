"""Charge and spin of a structure, and what a label belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms

from retemper.errors import RetemperError


@dataclass(frozen=True)
class State:
    """Total charge, and multiplicity 2S + 1."""

    charge: int
    multiplicity: int
    given: bool  # whether the structure names its multiplicity; else it is the lowest

    @property
    def special(self) -> bool:
        """Whether the structure is said to have a charge or unpaired electrons."""
        return bool(self.charge) or (self.given and self.multiplicity > 1)


def state_of(atoms: Atoms) -> State:
    """From ``info["charge"]`` and ``info["spin"]`` (multiplicity), as MACE reads them; 0 and the lowest without.

    Raises
    ------
    RetemperError
        A multiplicity that the number of electrons does not allow.
    """
    charge = int(atoms.info.get("charge", 0))
    electrons = int(atoms.numbers.sum()) - charge
    lowest = 1 + electrons % 2
    multiplicity = int(atoms.info.get("spin", lowest))
    if multiplicity < 1 or (multiplicity - lowest) % 2:
        raise RetemperError(
            f"{atoms.get_chemical_formula()} with charge {charge} has {electrons} electrons.",
            expected=f"a multiplicity of {lowest}, {lowest + 2}, ...",
            got=f"info['spin'] = {multiplicity}",
            fix="correct charge and spin of the labelled structures",
        )
    return State(charge, multiplicity, "spin" in atoms.info)
