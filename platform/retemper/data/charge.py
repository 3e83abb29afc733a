"""Total charge and spin of a structure: read here alone, under either of their two spellings.

MACE trains on ``total_charge`` and ``total_spin``; its calculator reads ``charge`` and ``spin``.
Both mean the same: elementary charges, and the multiplicity 2S + 1. Files that retemper writes
have the first spelling, and frames that it reads have it from then on.

A frame that does not say is neutral and has multiplicity 1 to a model, as in MACE; an explicit 0
or 1 is the same. Programs that compute labels take the lowest multiplicity that the number of
electrons allows (`state_of`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ase import Atoms

from retemper.core.errors import RetemperError

CHARGE, SPIN = "total_charge", "total_spin"  # how files of retemper spell them
SPELLINGS = {CHARGE: (CHARGE, "charge"), SPIN: (SPIN, "spin")}


def charge_of(atoms: Atoms) -> float:
    """Total charge in e; 0 where the frame does not say."""
    value = stated_value(atoms, CHARGE)
    return 0.0 if value is None else value


def spin_of(atoms: Atoms) -> float | None:
    """Multiplicity 2S + 1; `None` where the frame does not say."""
    return stated_value(atoms, SPIN)


def stated_value(atoms: Atoms, name: str, origin: str = "a frame") -> float | None:
    """What a frame's info says of `name` (`CHARGE` or `SPIN`); `None` where it says nothing. `origin` is for messages.

    Raises
    ------
    RetemperError
        The two spellings contradict each other, the value is not a number, or a spin is no multiplicity.
    """
    by_key = {key: atoms.info[key] for key in SPELLINGS[name] if atoms.info.get(key) is not None}
    if not by_key:
        return None
    try:
        values = {float(value) for value in by_key.values()}
    except (TypeError, ValueError):
        values = set()
    value = values.pop() if len(values) == 1 else float("nan")
    if not (abs(value) < float("inf")) or (name == SPIN and (value < 1 or value != int(value))):
        meaning = "one number, in e" if name == CHARGE else "one multiplicity 2S + 1, a whole number from 1 on"
        raise RetemperError(
            f"No clear {name.replace('_', ' ')} of {origin} ({atoms.get_chemical_formula()}).",
            expected=f"{meaning}, under {' or '.join(SPELLINGS[name])}",
            got=", ".join(f"{key}={entry!r}" for key, entry in by_key.items()),
            fix="correct the frame's info, or take the key out of it",
        )
    return value


def info_of(atoms: Atoms, origin: str = "a frame") -> dict[str, float]:
    """What a frame says of its charge and spin, as files of retemper spell it."""
    stated = {name: stated_value(atoms, name, origin) for name in SPELLINGS}
    return {name: _whole(value) for name, value in stated.items() if value is not None}


def settle(atoms: Atoms, origin: str = "a frame") -> Atoms:
    """The frame itself, its charge and spin under retemper's spelling alone."""
    stated = info_of(atoms, origin)
    for spellings in SPELLINGS.values():
        for key in spellings:
            atoms.info.pop(key, None)
    atoms.info |= stated
    return atoms


def as_calculators_read(atoms: Atoms) -> dict[str, float]:
    """What a frame says of its charge and spin in both spellings: for calculators that read ``atoms.info``."""
    stated = info_of(atoms)
    return {key: value for name, value in stated.items() for key in SPELLINGS[name]}


def special(atoms: Atoms) -> dict[str, float]:
    """Charge and spin as part of a structure's identity: only what is not 0 and not 1."""
    return {name: value for name, value in info_of(atoms).items() if value != (0 if name == CHARGE else 1)}


def in_words(atoms: Atoms) -> str:
    """Charge and spin for messages: "charge -1, multiplicity 2"."""
    multiplicity = spin_of(atoms)
    return f"charge {charge_of(atoms):g}" + ("" if multiplicity is None else f", multiplicity {multiplicity:g}")


def warnings(frames: Iterable[Atoms]) -> list[str]:
    """What to say about frames whose charge and spin do not fit together, or whose spin a model would have to guess.

    Judged where a frame has a charge or a spin; only whole charges have a number of electrons.
    """
    impossible = unstated = 0
    for atoms in frames:
        electrons = int(atoms.numbers.sum()) - charge_of(atoms)
        multiplicity = spin_of(atoms)
        if electrons != int(electrons):
            continue
        if multiplicity is not None:
            impossible += (electrons + multiplicity) % 2 == 0
        elif charge_of(atoms) and not atoms.pbc.any():
            unstated += electrons % 2 == 1
    messages = []
    if impossible:
        messages.append(f"{impossible} frames have a multiplicity that their number of electrons does not allow")
    if unstated:
        messages.append(
            f"{unstated} charged frames have an odd number of electrons and do not say their multiplicity ({SPIN}): "
            "a model that reads spin takes them for singlets"
        )
    return messages


def _whole(value: float) -> float:
    """A whole number as `int`, so that files hold -1 and not -1.0."""
    return int(value) if value == int(value) else value


# ------------------------------------------------------------------ for programs that compute labels


@dataclass(frozen=True)
class State:
    """Total charge, and multiplicity 2S + 1, of a calculation."""

    charge: int
    multiplicity: int
    given: bool  # whether the structure names its multiplicity; else it is the lowest

    @property
    def special(self) -> bool:
        """Whether the structure is said to have a charge or unpaired electrons."""
        return bool(self.charge) or (self.given and self.multiplicity > 1)


def state_of(atoms: Atoms) -> State:
    """Charge and multiplicity to compute a structure with: 0 and the lowest where it does not say.

    Raises
    ------
    RetemperError
        A charge that is not whole, or a multiplicity that the number of electrons does not allow.
    """
    charge, spin = charge_of(atoms), spin_of(atoms)
    if charge != int(charge):
        raise RetemperError(
            f"{atoms.get_chemical_formula()} has a charge that is not whole.",
            got=f"{CHARGE} {charge:g}",
            fix="correct the charge of the labelled structures",
        )
    electrons = int(atoms.numbers.sum()) - int(charge)
    lowest = 1 + electrons % 2
    multiplicity = lowest if spin is None else int(spin)
    if (multiplicity - lowest) % 2:
        raise RetemperError(
            f"{atoms.get_chemical_formula()} with charge {charge:g} has {electrons} electrons.",
            expected=f"a multiplicity of {lowest}, {lowest + 2}, ...",
            got=f"{SPIN} {multiplicity}",
            fix="correct charge and spin of the labelled structures",
        )
    return State(int(charge), multiplicity, spin is not None)
