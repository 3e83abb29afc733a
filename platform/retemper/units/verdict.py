"""Whether labels can be in the units that the user declared, and if not, in which they are.

The test weighs every combination of units that occurs in practice against measurements on
the labels themselves (`retemper.units.witnesses`): how energies and forces belong together, how
stiff bonds are, how far down an energy can be. Each measurement is a logarithm with an
uncertainty, so the combinations are compared by chi squared. A combination that is much
better than the declared one is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ase import Atoms

from retemper.errors import RetemperError
from retemper.units.table import ENERGY_UNITS, LENGTH_UNITS, STRESS_UNITS, energy_factor, length_factor
from retemper.units.witnesses import Witness, stress_witness, typical_spacing, witnesses

PER_ATOM = "eV per atom"
RARE = {PER_ATOM: 2.0, "meV": 2.0, "Ry": 1.0}  # chi squared against units that few codes write
MIN_FRAMES = 8  # fewer frames bear no witness
ERROR, WARNING = 12.0, 6.0  # how much better in chi squared another combination must be
NATURAL = {("Hartree", "Bohr"), ("Ry", "Bohr"), ("kJ/mol", "nm")} | {(name, "Angstrom") for name in ENERGY_UNITS}


@dataclass(frozen=True)
class Verdict:
    """What the labels say about their units.

    Attributes
    ----------
    wrong
        Whether the declared units cannot be true.
    message
        The finding in words; empty when the declared units fit.
    fix
        What to do about it.
    evidence
        The measurements behind it, for the manifest.
    """

    wrong: bool
    message: str
    fix: str
    evidence: list[str]


@dataclass(frozen=True)
class _Combination:
    energy: str
    force_energy: str
    force_length: str
    log_energy: float  # ln(eV in the unit / eV in the declared unit)
    log_force: float
    penalty: float  # for a combination that few codes write

    def __str__(self) -> str:
        length = {"Angstrom": "A"}.get(self.force_length, self.force_length)
        return f"energies in {self.energy} and forces in {self.force_energy}/{length}"


def _combinations(energy_unit: str, length_unit: str, atoms_per_frame: float) -> list[_Combination]:
    """Every combination of units, the declared one first and without a penalty."""
    energy, length = energy_factor(energy_unit), length_factor(length_unit)
    declared_force = energy / length
    energies = ENERGY_UNITS | {PER_ATOM: atoms_per_frame}
    rows = []
    for name, factor in energies.items():
        for force_name in sorted({"eV", "Hartree", name} - {PER_ATOM}):
            for length_name, length_value in LENGTH_UNITS.items():
                force = ENERGY_UNITS[force_name] / length_value
                declared = math.isclose(factor, energy) and math.isclose(force, declared_force) and name != PER_ATOM
                penalty = 0.0 if (force_name, length_name) in NATURAL else 3.0
                penalty += (3.0 if force_name != name else 0.0) + RARE.get(name, 0.0)
                rows.append(
                    _Combination(
                        name,
                        force_name,
                        length_name,
                        math.log(factor / energy),
                        math.log(force / declared_force),
                        0.0 if declared else penalty,
                    )
                )
    as_declared = [c for c in rows if c.log_energy == 0 and c.log_force == 0 and c.energy != PER_ATOM]
    if not as_declared:  # the declared pair is not one that the loops make, such as Ry with nm
        as_declared = [_Combination(energy_unit, energy_unit, length_unit, 0.0, 0.0, 0.0)]
    return as_declared[:1] + [c for c in rows if c is not as_declared[0]]


def _chi2(combination: _Combination, found: Sequence[Witness], hard_only: bool = False) -> float:
    total = combination.penalty
    for witness in found:
        if witness.hard or not hard_only:
            total += witness.chi2(combination.log_energy, combination.log_force)
    return total


def check_units(frames: Sequence[Atoms], energy_unit: str, length_unit: str) -> Verdict:
    """Test whether labels that were converted from the declared units can be eV and eV/A.

    Parameters
    ----------
    frames
        Structures of one origin with ``REF_energy``, ``REF_forces`` and perhaps ``REF_stress``,
        converted from `energy_unit` and `length_unit`. Isolated atoms are left out here.
    energy_unit, length_unit
        What the user declared; the answer is in terms of the numbers in the file.

    Returns
    -------
    Verdict
        `wrong` when another combination of units explains the labels far better and a
        measurement that depends on units alone says so. A suspicion without such a
        measurement only has a message.
    """
    frames = [frame for frame in frames if len(frame) > 1]
    if len(frames) < MIN_FRAMES:
        return Verdict(False, "", "", [f"units not tested: fewer than {MIN_FRAMES} frames"])
    spacing = _positions(frames)
    if spacing is not None:
        return spacing
    found = witnesses(frames)
    evidence = list(dict.fromkeys(witness.text for witness in found))
    flipped = next((witness for witness in found if witness.negative), None)
    if flipped is not None:
        return Verdict(
            True,
            f"The forces have the wrong sign, they are gradients of the energy ({flipped.text}).",
            "multiply the forces by -1",
            evidence,
        )
    verdict = _weigh(found, frames, energy_unit, length_unit)
    if verdict is None:
        verdict = _stress(frames, energy_factor(energy_unit) / length_factor(length_unit) ** 3)
    return Verdict(verdict.wrong, verdict.message, verdict.fix, evidence + verdict.evidence)


def _weigh(found: Sequence[Witness], frames: Sequence[Atoms], energy_unit: str, length_unit: str) -> Verdict | None:
    """Compare all combinations of units; `None` when the declared one stands."""
    sizes = sorted(len(frame) for frame in frames)
    combinations = _combinations(energy_unit, length_unit, sizes[len(sizes) // 2])
    declared = combinations[0]
    ranked = sorted(combinations, key=lambda c: _chi2(c, found))
    best = ranked[0]
    gain = _chi2(declared, found) - _chi2(best, found)
    hard_gain = _chi2(declared, found, hard_only=True) - _chi2(best, found, hard_only=True)
    if best is declared or gain < WARNING:
        return None
    rivals = [c for c in ranked[1:] if c is not declared and _chi2(c, found) - _chi2(best, found) < 3.0][:2]
    name = str(best) + "".join(f", or {rival}" for rival in rivals)
    wrong = gain > ERROR and hard_gain > ERROR * 0.75
    strength = "are not" if wrong else "may not be"
    because = "; ".join(w.text for w in found if w.chi2(0.0, 0.0) - w.chi2(best.log_energy, best.log_force) > 2.0)
    return Verdict(
        wrong,
        f"The labels {strength} in the declared units (energy_unit: {energy_unit}, length_unit: {length_unit}). "
        f"They look like {name}. Reason: {because}.",
        _remedy(best, declared),
        [],
    )


def _remedy(best: _Combination, declared: _Combination) -> str:
    if best.energy == PER_ATOM:
        return "give total energies: multiply each by its number of atoms"
    if best.energy == best.force_energy:
        return f"set dataset.energy_unit: {best.energy} and dataset.length_unit: {best.force_length} in params.yaml"
    if best.log_force == 0:
        return f"convert the energies from {best.energy} to {declared.energy} in the file"
    if best.log_energy == 0:
        return f"convert the forces from {best.force_energy}/{best.force_length} to those of the energies in the file"
    return f"convert to eV and eV/A in the file: it has {best}"


def _positions(frames: Sequence[Atoms]) -> Verdict | None:
    """Whether positions are in Angstrom, by the typical nearest distance over covalent radii."""
    ratio, noble = typical_spacing(frames)
    text = f"nearest neighbours lie at {ratio:.2f} times the sum of covalent radii"
    for unit, low, high in (("nm", 0.06, 0.14), ("Bohr", 1.5, 2.4)):
        if low < ratio < high and noble < 0.2:
            fix = "convert positions and cells to Angstrom in the file"
            return Verdict(True, f"The positions are not in Angstrom, they look like {unit}: {text}.", fix, [text])
    return None


def _stress(frames: Sequence[Atoms], declared: float) -> Verdict:
    """Sign and unit of the stress, from the energies of strained copies of a structure."""
    found = stress_witness(frames)
    if found is None:
        return Verdict(False, "", "", [])
    if found.negative:
        return Verdict(
            True,
            f"The stress has the wrong sign ({found.text}). retemper follows ASE: positive under tension.",
            "multiply the stress by -1 (a virial is -stress * volume: use dataset.keys.virial for one)",
            [found.text],
        )
    chi2 = {name: found.chi2(0.0, math.log(factor / declared)) for name, factor in STRESS_UNITS.items()}
    best = min(chi2, key=lambda name: chi2[name])
    gain = found.chi2(0.0, 0.0) - chi2[best]
    if gain < WARNING:
        return Verdict(False, "", "", [found.text])
    wrong = found.hard and gain > ERROR
    return Verdict(
        wrong,
        f"The stress {'is' if wrong else 'may be'} not in the unit of the energies and lengths. "
        f"It looks like {best}. Reason: {found.text}.",
        "convert the stress in the file to energy_unit / length_unit^3",
        [found.text],
    )


def require_units(
    frames: Sequence[Atoms], energy_unit: str, length_unit: str, origin: str
) -> tuple[list[str], list[str]]:
    """`check_units` for the frames of `origin`; wrong units raise.

    Returns
    -------
    warnings, evidence
        Suspicions, and the measurements, in words.

    Raises
    ------
    RetemperError
        The labels are in other units; the message names them.
    """
    verdict = check_units(frames, energy_unit, length_unit)
    if verdict.wrong:
        raise RetemperError(f"{origin}: wrong units. {verdict.message}", fix=verdict.fix)
    warnings = [f"{origin}: {verdict.message} If so, {verdict.fix}."] if verdict.message else []
    return warnings, verdict.evidence
