"""Sign and unit of the stress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase import Atoms, units

from retemper.frames import STRESS
from retemper.units.closepairs import CLOSE, close_pairs
from retemper.units.predicted import Predicted, stress_slope
from retemper.units.table import STRESS_UNITS
from retemper.units.witness import Witness, weighted_median

ERROR, WARNING = 12.0, 6.0  # how much better in chi squared another unit must be
RIVAL = 6.0  # how much worse every third unit must be before one is named
APART = 1.2  # ln of the factor between two units above which the labels should tell them apart


def judge_stress(
    frames: Sequence[Atoms], declared: float, predicted: Predicted | None
) -> tuple[bool, str, str, list[str], list[str]]:
    """Sign and unit of the stress, from energies of strained copies of a structure or a foundation's stress.

    Parameters
    ----------
    frames
        With ``REF_stress`` in some of them.
    declared
        eV/A^3 in the declared unit.
    predicted
        What a foundation says about a sample of the frames.

    Returns
    -------
    wrong, message, fix, evidence, untested
        As in `retemper.units.verdict.Verdict`.
    """
    slope = None if predicted is None else stress_slope(predicted)
    found = [witness for witness in (stress_witness(frames), slope) if witness is not None]
    evidence = [witness.text for witness in found]
    hard = [witness for witness in found if witness.hard]
    negative = [witness.text for witness in hard if witness.negative]
    if len(negative) > len(hard) / 2:
        return (
            True,
            f"The stress has the wrong sign ({'; '.join(negative)}). retemper follows ASE: positive under tension.",
            "multiply the stress by -1 (a virial is -stress * volume: use dataset.keys.virial for one)",
            evidence,
            [],
        )

    def chi2(factor: float, among: Sequence[Witness]) -> float:
        return sum(witness.chi2(0.0, math.log(factor / declared)) for witness in among)

    ranked = sorted(STRESS_UNITS, key=lambda name: chi2(STRESS_UNITS[name], found))
    best = STRESS_UNITS[ranked[0]]
    gain, hard_gain = (chi2(declared, among) - chi2(best, among) for among in (found, hard))
    if gain < WARNING:
        near = [name for name in ranked if chi2(STRESS_UNITS[name], hard) - chi2(declared, hard) < ERROR]
        left = [name for name in near if abs(math.log(STRESS_UNITS[name] / declared)) > APART]
        words = [f"stress: nothing tells energy_unit / length_unit^3 from {', '.join(left)}"] if left else []
        return False, "", "", evidence, words
    rivals = [name for name in ranked[1:] if chi2(STRESS_UNITS[name], found) - chi2(best, found) < RIVAL]
    wrong = gain > ERROR and hard_gain > ERROR * 0.75
    fix = f"convert the stress in the file from {ranked[0]} to energy_unit / length_unit^3"
    if rivals:
        fix = "look up the unit of the stress in the manual of the code that made the labels; the labels cannot tell"
    return (
        wrong,
        f"The stress {'is' if wrong else 'may be'} not in the unit of the energies and lengths. "
        f"It looks like {', or '.join([ranked[0], *rivals])}. Reason: {'; '.join(evidence)}.",
        fix,
        evidence,
        [],
    )


def stress_witness(frames: Sequence[Atoms]) -> Witness | None:
    """Energy differences of strained copies, less the work of the forces, over V s:e; or the size of the stress.

    The stress enters as `force` does in `Witness.chi2`. `None` without stress.
    """
    pairs = close_pairs(frames)
    use = np.isfinite(pairs.stress_work) & (pairs.strain > 2e-3) & (pairs.strain < 0.15) & (pairs.rms < CLOSE)
    work, rest = pairs.stress_work[use], (pairs.energy + pairs.force_work)[use]
    if len(work) >= 8 and np.abs(work).sum() > 0:
        weight = np.minimum(np.abs(work), 10 * np.median(np.abs(work))) + 1e-12
        agreement = float(np.average(np.sign(work * rest), weights=weight))
        slope = weighted_median(np.abs(rest) / (np.abs(work) + 1e-12), weight)
        if abs(agreement) > 0.6 and slope > 0:
            sign = math.copysign(1, agreement)
            times = f"{sign * slope:.2g} times"
            text = f"energy differences of {len(work)} strained copies are {times} the work of the stress"
            return Witness(math.log(slope), 0, -1, 0.8, 0.8, True, text, negative=sign < 0)
    stresses = [np.abs(frame.info[STRESS]).max() for frame in frames if STRESS in frame.info]
    large = float(np.percentile(stresses, 90)) if stresses else 0.0
    if large == 0:
        return None
    text = f"a tenth of the frames has stress above {large:.2g} eV/A^3 ({large / units.GPa:.3g} GPa)"
    return Witness(math.log(large / 0.1), 0, 1, 1.3, 3.0, large > 10.0, text)
