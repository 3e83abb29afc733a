"""Total charge and spin of a structure: read here alone, under either of their two spellings.

MACE trains on ``total_charge`` and ``total_spin``; its calculator reads ``charge`` and ``spin``.
Both mean the same: elementary charges, and the multiplicity 2S + 1.
"""

from __future__ import annotations

from ase import Atoms

from retemper.errors import RetemperError

CHARGE, SPIN = "total_charge", "total_spin"  # how files of retemper spell them
SPELLINGS = {CHARGE: (CHARGE, "charge"), SPIN: (SPIN, "spin")}


def charge_of(atoms: Atoms) -> float:
    """Total charge in e; 0 where the frame does not say."""
    value = given(atoms, CHARGE)
    return 0.0 if value is None else value


def spin_of(atoms: Atoms) -> float | None:
    """Multiplicity 2S + 1; `None` where the frame does not say."""
    return given(atoms, SPIN)


def given(atoms: Atoms, name: str) -> float | None:
    """What a frame's info says of `name` (`CHARGE` or `SPIN`); `None` where it says nothing.

    Raises
    ------
    RetemperError
        The two spellings contradict each other, or the value is not a number.
    """
    found = {key: atoms.info[key] for key in SPELLINGS[name] if atoms.info.get(key) is not None}
    try:
        values = {key: float(value) for key, value in found.items()}
    except (TypeError, ValueError):
        values = {}
    if len(values) < len(found) or len(set(values.values())) > 1:
        raise RetemperError(
            f"A frame ({atoms.get_chemical_formula()}) contradicts itself in its {name.replace('_', ' ')}.",
            expected=f"one number under {' or '.join(SPELLINGS[name])}",
            got=", ".join(f"{key}={value!r}" for key, value in found.items()),
            fix="correct the frame's info",
        )
    return next(iter(values.values()), None)
