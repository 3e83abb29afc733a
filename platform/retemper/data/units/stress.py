"""Sign and unit of the stress, the order of its components, and virials in its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from ase import Atoms, units

from retemper.data.frames import STRESS
from retemper.data.units.close_pairs import CLOSE, close_pairs
from retemper.data.units.conversion import STRESS_UNITS
from retemper.data.units.predicted import LEAST_STRESSES, Predicted, stress_slope
from retemper.data.units.witness import Witness, weighted_median

Array = np.ndarray
ERROR, WARNING = 12.0, 6.0  # how much better in chi squared another unit must be
RIVAL = 6.0  # how much worse every third unit must be before one is named
APART = 1.2  # ln of the factor between two units above which the labels should tell them apart
NO_SHEAR = 0.02  # of the whole stress; below, the order of components does not matter
ORDER = 0.5  # mean cosine between labelled and predicted components off the diagonal
CLEARER = 0.15  # how much larger it must be in one order than in every other
VOIGT: tuple[int, ...] = (0, 1, 2)
NAMES: dict[tuple[int, ...], str] = {
    VOIGT: "xx yy zz yz xz xy (Voigt)",
    (1, 2, 0): "xx yy zz xy yz zx, as in VASP's OUTCAR",
}


@dataclass(frozen=True)
class StressVerdict:
    """What the labels say about their stress; the attributes are those of `retemper.data.units.check.Verdict`."""

    wrong: bool
    message: str
    fix: str
    evidence: list[str]
    untested: list[str]


def judge_stress(
    frames: Sequence[Atoms], declared: float, predicted: Predicted | None, length: float = 1.0
) -> StressVerdict:
    """Sign, unit and order of the stress, from energies of strained copies of a structure or a foundation's stress.

    Parameters
    ----------
    frames
        With ``REF_stress`` in some of them.
    declared
        eV/A^3 in the declared unit.
    predicted
        What a foundation says about a sample of the frames.
    length
        A in the declared unit of length.
    """
    signed = _sign_witnesses(frames, predicted)
    size = stress_size(frames)
    witnesses = signed if size is None or any(w.force < 0 for w in signed) else [size, *signed]
    evidence = [witness.text for witness in witnesses]
    negative = [witness.text for witness in signed if witness.negative]
    if len(negative) > len(signed) / 2:
        return _other_sign(frames, predicted, negative, evidence, length)
    verdict = _judge_unit(witnesses, declared, evidence)
    if verdict.message:
        return verdict
    untested = list(verdict.untested) if signed else ["stress: its sign is not tested", *verdict.untested]
    order, text = order_of_components(predicted) if predicted is not None else (None, "")
    evidence += [text] if text else []
    if order is not None and order != VOIGT:
        name = NAMES.get(order, "another order than xx yy zz yz xz xy")
        message = f"The components of the stress stand in the order {name} ({text})."
        return StressVerdict(True, message, f"write them as {NAMES[VOIGT]}, or as 3 x 3 numbers", evidence, [])
    if order is None and _has_shear(frames):
        untested.append("stress: the order of its components off the diagonal is not tested")
    return StressVerdict(False, "", "", evidence, untested)


def _sign_witnesses(frames: Sequence[Atoms], predicted: Predicted | None) -> list[Witness]:
    """Measurements that see the sign of the stress."""
    slope = None if predicted is None else stress_slope(predicted)
    return [witness for witness in (strained_copies(frames), slope) if witness is not None]


def _other_sign(
    frames: Sequence[Atoms], predicted: Predicted | None, negative: Sequence[str], evidence: list[str], length: float
) -> StressVerdict:
    """The verdict on stress of the wrong sign, which a virial has as well."""
    virial_predictions = (
        None if predicted is None else replace(predicted, frames=_from_virials(predicted.frames, length))
    )
    as_virials = _sign_witnesses(_from_virials(frames, length), virial_predictions)
    if as_virials and all(not w.negative and abs(w.log) < math.log(3) for w in as_virials):
        message = (
            f"The stress looks like a virial, -stress * volume, in the unit of the energies ({'; '.join(negative)})."
        )
        fix = "if it is one, set dataset.keys.virial to its key and dataset.keys.stress: null; if not, turn its sign"
    else:
        message = (
            f"The stress has the wrong sign ({'; '.join(negative)}). retemper follows ASE: positive under tension."
        )
        fix = "multiply the stress by -1 (a virial is -stress * volume: use dataset.keys.virial for one)"
    return StressVerdict(True, message, fix, evidence, [])


def _from_virials(frames: Sequence[Atoms], length: float) -> list[Atoms]:
    """Copies of the frames with stress from what was read as one, if that was a virial."""
    copies = []
    for frame in frames:
        new = frame.copy()
        if STRESS in new.info:
            new.info[STRESS] = -np.asarray(new.info[STRESS]) * length**3 / frame.cell.volume
        copies.append(new)
    return copies


def _judge_unit(witnesses: Sequence[Witness], declared: float, evidence: list[str]) -> StressVerdict:
    """Whether another unit explains the size of the stress far better."""
    hard = [witness for witness in witnesses if witness.hard]

    def chi2(factor: float, among: Sequence[Witness]) -> float:
        return sum(witness.chi2(0.0, math.log(factor / declared)) for witness in among)

    by_fit = sorted(STRESS_UNITS, key=lambda name: chi2(STRESS_UNITS[name], witnesses))
    best = STRESS_UNITS[by_fit[0]]
    gain, hard_gain = (chi2(declared, among) - chi2(best, among) for among in (witnesses, hard))
    if gain < WARNING:
        similar = [name for name in by_fit if chi2(STRESS_UNITS[name], hard) - chi2(declared, hard) < ERROR]
        far_units = [name for name in similar if abs(math.log(STRESS_UNITS[name] / declared)) > APART]
        words = [f"stress: nothing tells energy_unit / length_unit^3 from {', '.join(far_units)}"] if far_units else []
        return StressVerdict(False, "", "", evidence, words)
    rivals = [name for name in by_fit[1:] if chi2(STRESS_UNITS[name], witnesses) - chi2(best, witnesses) < RIVAL]
    wrong = gain > ERROR and hard_gain > ERROR * 0.75
    fix = f"convert the stress in the file from {by_fit[0]} to energy_unit / length_unit^3"
    if rivals:
        fix = "look up the unit of the stress in the manual of the code that made the labels; the labels cannot tell"
    message = (
        f"The stress {'is' if wrong else 'may be'} not in the unit of the energies and lengths. "
        f"It looks like {', or '.join([by_fit[0], *rivals])}. Reason: {'; '.join(evidence)}."
    )
    return StressVerdict(wrong, message, fix, evidence, [])


def _has_shear(frames: Sequence[Atoms]) -> bool:
    """Whether components off the diagonal are large enough for their order to matter."""
    matrices = [np.reshape(frame.info[STRESS], (3, 3)) for frame in frames if STRESS in frame.info]
    return any(np.linalg.norm(_shear(m)) > NO_SHEAR * np.linalg.norm(m) for m in matrices)


def _shear(matrix: Array) -> Array:
    """Components yz, xz, xy."""
    return np.array([matrix[1, 2], matrix[0, 2], matrix[0, 1]])


def order_of_components(predicted: Predicted) -> tuple[tuple[int, ...] | None, str]:
    """Where yz, xz and xy of the true stress stand in the labels, and how that was seen.

    `None` where no order fits the foundation's stress clearly better than every other one.
    """
    use = [k for k, a in enumerate(predicted.frames) if STRESS in a.info and np.isfinite(predicted.stress[k]).all()]
    labels = np.array([_shear(np.reshape(predicted.frames[k].info[STRESS], (3, 3))) for k in use]).reshape(-1, 3)
    predicted_shear = np.array([_shear(predicted.stress[k]) for k in use]).reshape(-1, 3)
    sizes = np.linalg.norm(labels, axis=1) * np.linalg.norm(predicted_shear, axis=1)
    labels, predicted_shear, sizes = labels[sizes > 0], predicted_shear[sizes > 0], sizes[sizes > 0]
    if len(sizes) < LEAST_STRESSES:
        return None, ""
    weights = np.minimum(np.sqrt(sizes), 10 * np.median(np.sqrt(sizes)))
    orders = list(permutations(VOIGT))
    cosines = [
        np.average((labels[:, order] * predicted_shear).sum(axis=1) / sizes, weights=weights) for order in orders
    ]
    first, second = np.argsort(cosines)[::-1][:2]
    if cosines[first] < ORDER or cosines[first] - cosines[second] < max(CLEARER, 2 / math.sqrt(3 * len(sizes))):
        return None, ""
    text = f"cosine {cosines[first]:.2f} with the foundation's components off the diagonal in that order"
    return orders[first], f"{text}, {cosines[orders.index(VOIGT)]:.2f} in Voigt's" if first else text


def strained_copies(frames: Sequence[Atoms]) -> Witness | None:
    """Energy differences of strained copies, less the work of the forces, over V s:e; enters as `force` does.

    `None` where there are too few, or they do not agree.
    """
    pairs = close_pairs(frames)
    use = np.isfinite(pairs.stress_work) & (pairs.strain > 2e-3) & (pairs.strain < 0.15) & (pairs.rms < CLOSE)
    work, energy_change = pairs.stress_work[use], (pairs.energy + pairs.force_work)[use]
    if len(work) < 8 or np.abs(work).sum() == 0:
        return None
    weight = np.minimum(np.abs(work), 10 * np.median(np.abs(work))) + 1e-12
    agreement = float(np.average(np.sign(work * energy_change), weights=weight))
    slope = weighted_median(np.abs(energy_change) / (np.abs(work) + 1e-12), weight)
    if abs(agreement) <= 0.6 or slope <= 0:
        return None
    sign = math.copysign(1, agreement)
    times = f"{sign * slope:.2g} times"
    text = f"energy differences of {len(work)} strained copies are {times} the work of the stress"
    return Witness(math.log(slope), 0, -1, 0.8, 0.8, True, text, negative=sign < 0)


def stress_size(frames: Sequence[Atoms]) -> Witness | None:
    """How large the stress is; `None` without any."""
    stresses = [np.abs(frame.info[STRESS]).max() for frame in frames if STRESS in frame.info]
    large = float(np.percentile(stresses, 90)) if stresses else 0.0
    if large == 0:
        return None
    text = f"a tenth of the frames has stress above {large:.2g} eV/A^3 ({large / units.GPa:.3g} GPa)"
    return Witness(math.log(large / 0.1), 0, 1, 1.3, 3.0, large > 10.0, text)
