"""Whether labels can be in the units that the user declared, and if not, in which they are.

The test weighs every combination of units that occurs in practice against measurements on
the labels themselves (`retemper.data.units.measurements`): how energies and forces belong together, how
stiff bonds are, how far free atoms lie above, how far down an energy can be; and where these leave
something open, against what a foundation predicts (`retemper.data.units.predicted`). Each measurement is
a logarithm with an uncertainty, so the combinations are compared by chi squared. A combination
that is much better than the declared one is named, if no other one is nearly as good; what no
measurement rules out is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from retemper.data.frames import ENERGY, STRESS
from retemper.data.units.combinations import Combination, combinations
from retemper.data.units.conversion import energy_factor, length_factor
from retemper.data.units.measurements import typical_spacing, witnesses
from retemper.data.units.predicted import Predict, Predicted
from retemper.data.units.stress import judge_stress
from retemper.data.units.witness import Witness

ERROR, WARNING = 12.0, 6.0  # how much better in chi squared another combination must be
RIVAL = 5.0  # how much worse every third combination must be before one is named
UNEXPLAINED = 16.0  # chi squared of the best combination above which it is no explanation
PURE, MIXED = 4.0, 1.0  # what custom counts against a rival where the best is usual, and where it is not
USUAL = 3.0  # penalty up to which a combination is usual
APART = 1.2  # ln of the factor between two units above which the labels should tell them apart

WitnessLists = tuple[list[Witness], list[Witness]]  # with energies taken as total ones, and as energies per atom


@dataclass(frozen=True)
class Correction:
    """What makes the labels right: their units and signs."""

    units: Combination
    energy_sign: int = 1
    force_sign: int = 1

    def fix(self, declared: Combination, in_file: bool) -> str:
        """In words; with `in_file` without the settings, which hold for other files too."""
        steps = []
        if self.energy_sign < 0:
            steps.append("multiply the energies by -1")
        if self.force_sign < 0:
            steps.append("multiply the forces by -1")
        if self.units.per_atom:
            steps.append("give total energies: multiply each by its number of atoms")
        wrong_energy, wrong_force = self.units.log_energy != 0, self.units.log_force != 0
        if wrong_energy and wrong_force and self.units.energy == self.units.force_energy and not in_file:
            unit, length = self.units.energy, self.units.force_length
            steps.append(f"set dataset.energy_unit: {unit} and dataset.length_unit: {length} in params.yaml")
        else:
            if wrong_energy:
                steps.append(f"convert the energies in the file from {self.units.energy} to {declared.energy}")
            if wrong_force:
                steps.append(f"convert the forces in the file from {self.units.forces} to {declared.forces}")
        return "; ".join(steps)


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
        What to do about it; that it cannot be told, where several units fit.
    evidence
        The measurements behind it, for the manifest.
    untested
        What no measurement rules out, in words; empty when units and signs were tested.
    correction
        What `fix` says about energies and forces; `None` where there is nothing to say.
    """

    wrong: bool
    message: str
    fix: str
    evidence: list[str]
    untested: list[str]
    correction: Correction | None = None


def check_units(
    frames: Sequence[Atoms],
    energy_unit: str,
    length_unit: str,
    free: Mapping[int, float] | None = None,
    predict: Predict | None = None,
) -> Verdict:
    """Test whether labels that were converted from the declared units can be eV and eV/A.

    Parameters
    ----------
    frames
        Structures of one origin with ``REF_energy``, ``REF_forces`` and perhaps ``REF_stress``,
        converted from `energy_unit` and `length_unit`.
    energy_unit, length_unit
        What the user declared; the answer is in terms of the numbers in the file.
    free
        Energies of free atoms {atomic number: eV}; without them those among `frames`.
    predict
        Predictions of a foundation for a sample of the frames, asked for when the labels alone leave
        something open; see `retemper.prepare.predictor`.

    Returns
    -------
    Verdict
        `wrong` when another combination of units explains the labels far better and a
        measurement that depends on units alone says so. A suspicion without such a
        measurement only has a message.
    """
    free = free or free_atoms(frames)
    frames = [frame for frame in frames if len(frame) > 1]
    if not frames:
        return Verdict(False, "", "", [], [])
    spacing = _positions(frames)
    if spacing is not None:
        return spacing
    verdict = _judge(frames, energy_unit, length_unit, free, None)
    if predict is not None and (verdict.message or verdict.untested):
        predicted = predict(frames)
        if predicted is not None:
            verdict = _judge(frames, energy_unit, length_unit, free, predicted)
    return verdict


def free_atoms(frames: Sequence[Atoms]) -> dict[int, float]:
    """Energies of the free atoms among `frames`, {atomic number: eV}."""
    return {int(f.numbers[0]): float(f.info[ENERGY]) for f in frames if len(f) == 1 and not f.pbc.any()}


def _judge(
    frames: Sequence[Atoms],
    energy_unit: str,
    length_unit: str,
    free: Mapping[int, float],
    predicted: Predicted | None,
) -> Verdict:
    witness_lists = witnesses(frames, free, predicted)
    signs = _signs(witness_lists[0], frames)
    verdict = _weigh(
        witness_lists, combinations(energy_unit, length_unit), signs, math.log(np.median(list(map(len, frames))))
    )
    evidence = list(dict.fromkeys(witness.text for witness in witness_lists[0]))
    verdict = replace(verdict, evidence=evidence)
    if verdict.wrong or not any(STRESS in frame.info for frame in frames):
        return verdict
    length = length_factor(length_unit)
    stress = judge_stress(frames, energy_factor(energy_unit) / length**3, predicted, length)
    first = verdict.message and not stress.wrong
    return Verdict(
        stress.wrong,
        verdict.message if first else stress.message,
        verdict.fix if first else stress.fix,
        evidence + stress.evidence,
        verdict.untested + stress.untested + ([stress.message] if first and stress.message else []),
        verdict.correction if first else None,
    )


def _signs(witnesses: Sequence[Witness], frames: Sequence[Atoms]) -> list[tuple[int, int]]:
    """Signs of energies and forces that no measurement contradicts, the likeliest first.

    Gradients in the place of forces are common, energies of the wrong sign (binding energies) are
    not, and then the energies are positive.
    """
    signed = [witness for witness in witnesses if witness.hard and (witness.energy or witness.force)]
    options = [(1, 1), (1, -1), (-1, 1), (-1, -1)]

    def against(option: tuple[int, int]) -> int:
        energy, force = option
        expected = [energy ** int(abs(w.energy)) * force ** int(abs(w.force)) for w in signed]
        return sum((sign < 0) != w.negative for sign, w in zip(expected, signed, strict=True))

    fewest = min(map(against, options))
    fitting = [option for option in options if against(option) == fewest]
    if (1, 1) in fitting:
        return [(1, 1)]
    fitting = [option for option in fitting if option != (-1, -1)] or fitting
    if np.median([frame.info[ENERGY] for frame in frames]) < 0:
        fitting = [option for option in fitting if option[0] > 0] or fitting
    return fitting


def _weigh(
    witness_lists: WitnessLists, options: Sequence[Combination], signs: Sequence[tuple[int, int]], log_atoms: float
) -> Verdict:
    """Compare all combinations of units; `log_atoms` is ln of the usual number of atoms."""
    declared = options[0]
    chi2 = {c: _chi2(c, witness_lists) for c in options}
    by_fit = sorted(options, key=lambda c: chi2[c])
    best = by_fit[0]
    gain = chi2[declared] - chi2[best]
    flipped = signs != [(1, 1)]
    if gain < WARNING:
        best = declared
        if not flipped:
            return Verdict(False, "", "", [], _open(options, chi2, log_atoms))
    hard = {c: _chi2(c, witness_lists, hard_only=True) for c in (declared, best)}
    misfit = gain > ERROR and hard[declared] - hard[best] > ERROR * 0.75
    rivals = [] if best is declared else _rivals(best, by_fit, witness_lists, chi2)
    explained = hard[best] < UNEXPLAINED
    sentences = []
    if flipped:
        negative = " or ".join(_wrong_sign(*option) for option in signs)
        gradients = ", they are gradients of the energy" if signs == [(1, -1)] else ""
        text = "; ".join(witness.text for witness in witness_lists[0] if witness.negative)
        sentences.append(f"The {negative} have the wrong sign{gradients} ({text}).")
    if best is not declared:
        name = str(best) + "".join(f", or {rival}" for rival in rivals[:3]) + (", or others" if rivals[3:] else "")
        seems = f"They look like {name}." if explained else "No usual unit explains them."
        because = "; ".join(w.text for w in witness_lists[0] if w.chi2(0.0, 0.0) > 2.0)
        units = f"energy_unit: {declared.energy}, length_unit: {declared.force_length}"
        sentences.append(
            f"The labels {'are' if misfit else 'may'} not {'' if misfit else 'be '}in the declared units ({units}). "
            f"{seems} Reason: {because}."
        )
    if len(signs) == 1 and not rivals and explained:
        correction = Correction(best, *signs[0])
        return Verdict(misfit or flipped, " ".join(sentences), correction.fix(declared, False), [], [], correction)
    fix = "look up in the input and manual of the code that made the labels which it is; the labels cannot tell"
    return Verdict(misfit or flipped, " ".join(sentences), fix, [], [])


def _rivals(
    best: Combination, by_fit: Sequence[Combination], witness_lists: WitnessLists, chi2: Mapping[Combination, float]
) -> list[Combination]:
    """Combinations that make other labels than `best` and fit nearly as well.

    What codes usually write is a reason to prefer one unit to another of about the same size. Where
    the unit of the forces is unusual already it counts for little. Of a label that no measurement
    speaks of, neither that nor the kind of data decides.
    """
    hard = [w for w in witness_lists[best.per_atom] if w.hard and math.isfinite(w.above) and math.isfinite(w.below)]
    heard = (not best.log_energy or any(w.energy for w in hard)) and (not best.log_force or any(w.force for w in hard))
    usual = best.energy == best.force_energy and best.penalty <= USUAL
    spare = math.inf if best.log_force == 0 else PURE if usual else MIXED

    def excess(c: Combination) -> float:
        if not heard:
            return _chi2(c, witness_lists, True) - c.penalty - _chi2(best, witness_lists, True) + best.penalty
        return chi2[c] - chi2[best] - max(0.0, c.penalty - best.penalty - spare)

    return [c for c in by_fit if excess(c) < RIVAL and not c.same(best)]


def _wrong_sign(energy: int, force: int) -> str:
    return " and ".join(name for name, sign in (("energies", energy), ("forces", force)) if sign < 0)


def _chi2(combination: Combination, witness_lists: WitnessLists, hard_only: bool = False) -> float:
    total = combination.penalty
    for witness in witness_lists[combination.per_atom]:
        if witness.hard or not hard_only:
            total += witness.chi2(combination.log_energy, combination.log_force)
    return total


def _open(options: Sequence[Combination], chi2: Mapping[Combination, float], log_atoms: float) -> list[str]:
    """Units far from the declared ones that the labels would not have told from them."""
    declared = options[0]
    indistinct = [c for c in options if not c.as_declared and chi2[c] - chi2[declared] < ERROR]
    energies = dict.fromkeys(c.energies for c in indistinct if abs(c.log_energy + c.per_atom * log_atoms) > APART)
    forces = dict.fromkeys(c.forces for c in indistinct if abs(c.log_force) > APART)
    words = []
    for label, unit, names in (("energies", declared.energies, energies), ("forces", declared.forces, forces)):
        if names:
            listing = ", ".join(list(names)[:4]) + (", ..." if len(names) > 4 else "")
            words.append(f"{label}: nothing tells {unit} from {listing}")
    return words


def _positions(frames: Sequence[Atoms]) -> Verdict | None:
    """Whether positions are in Angstrom, by the typical nearest distance over covalent radii."""
    ratio, noble = typical_spacing(frames)
    text = f"nearest neighbours lie at {ratio:.2f} times the sum of covalent radii"
    for unit, low, high in (("nm", 0.06, 0.14), ("Bohr", 1.5, 2.4)):
        if low < ratio < high and noble < 0.2:
            fix = "convert positions and cells to Angstrom in the file"
            return Verdict(True, f"The positions are not in Angstrom, they look like {unit}: {text}.", fix, [text], [])
    return None
