"""Measurements on labels that depend on their units: what `retemper.units` judges by.

Energies and forces of close frames must fit the line integral of the force, bonds have a
stiffness that their length and elements tell, and no energy lies below that of all
electrons of all atoms. None of it needs to know the level of theory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii

from retemper.composition import robust_fit
from retemper.frames import ENERGY, FORCES, STRESS
from retemper.geometry import neighbours
from retemper.units.closepairs import CLOSE, STRAINED, ClosePairs, close_pairs
from retemper.units.forcelaws import bond_stiffness, fit_pair_potential

Array = np.ndarray
NOBLE = (2, 10, 18, 36, 54, 86)
PAIR_ELEMENTS = 5  # elements, at most, for the fit of a pair potential


@dataclass(frozen=True)
class Witness:
    """One measurement: the logarithm of a number that is 1 when the units are right.

    Attributes
    ----------
    log
        ln of the measured number's size; its sign is in `negative`.
    energy, force
        How much `log` grows when ln of all energies, or of all forces, grows by 1.
    above, below
        Standard deviation of `log` on either side of 0 over published data sets.
    hard
        Whether the number depends on units alone; a soft one also depends on the kind of data.
    text
        The measurement in words.
    cap
        Largest chi squared that it may contribute.
    negative
        Whether the measured number is negative.
    """

    log: float
    energy: float
    force: float
    above: float
    below: float
    hard: bool
    text: str
    cap: float = math.inf
    negative: bool = False

    def chi2(self, log_energy: float, log_force: float) -> float:
        """Squared deviation over variance after scaling energies and forces."""
        rest = self.log + self.energy * log_energy + self.force * log_force
        return min((rest / (self.above if rest > 0 else self.below)) ** 2, self.cap)


def witnesses(frames: Sequence[Atoms]) -> list[Witness]:
    """All measurements that `frames` allow, on labels in eV and eV/A."""
    pairs = close_pairs(frames)
    together = _line_integral(pairs) or _pair_potential(frames)
    stiffness = _stiffness(frames) or _curvature(pairs)
    found = [together, stiffness, *_totals(frames), _force_size(frames), _energy_spread(frames)]
    return [witness for witness in found if witness is not None]


def _median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def _line_integral(pairs: ClosePairs) -> Witness | None:
    """Energy differences of close frames over the work of the mean force between them.

    The trapezoidal rule E_b - E_a = -(F_a + F_b)/2 . (x_b - x_a) is exact to second order in
    the displacement. Pairs whose cells differ take the work V s:e of the stress s along the
    strain e as well, and are left out where there is no stress.
    """
    work = -pairs.force_work + np.where(pairs.strain > 1e-6, pairs.stress_work, 0.0)
    use = np.isfinite(work) & (np.abs(work) > 1e-9) & (pairs.rms < CLOSE) & (pairs.strain < STRAINED)
    if use.sum() < 6:
        return None
    ratio, weight = pairs.energy[use] / work[use], np.abs(work[use]) / (pairs.rms[use] + 0.01) ** 2
    weight = np.minimum(weight, 10 * np.median(weight))
    slope = _median(ratio, weight)
    spread = _median(np.abs(ratio / slope - 1), weight) if slope != 0 else math.inf
    if spread > 0.35:
        return None
    text = f"energy differences of {use.sum()} pairs of close frames are {slope:.3g} times the work of the forces"
    sigma = max(0.1, spread)
    return Witness(math.log(abs(slope)), 1, -1, sigma, sigma, True, text, negative=slope < 0)


def _pair_potential(frames: Sequence[Atoms]) -> Witness | None:
    """Energies over those of a pair potential fitted to the forces alone.

    For frames that lie too far apart for the line integral. A pair potential sees part of the
    forces only, so the number is good to a factor of two or three; units differ by ten or more.
    """
    sample = _sample(frames, 60, 5000)
    species = sorted({int(z) for frame in sample for z in frame.numbers})
    if len(species) > PAIR_ELEMENTS or len(sample) < 20:
        return None
    model, explained = fit_pair_potential(sample, species)
    sizes = np.array([len(frame) for frame in sample])
    energies = np.array([frame.info[ENERGY] for frame in sample])
    x, y = (_clip(robust_fit(sample, values / sizes)[0]) for values in (model, energies))
    norm = float(np.sqrt((x @ x) * (y @ y)))
    correlation = float(x @ y) / norm if norm > 0 else 0.0
    if explained < 0.3 or correlation < 0.75:
        return None
    slope = float(np.sqrt((y @ y) / (x @ x)))
    text = (
        f"energies vary {slope:.2g} times as much as those of a pair potential fitted to the forces "
        f"(correlation {correlation:.2f})"
    )
    return Witness(math.log(slope) - 0.3, 1, -1, 0.7, 0.7, True, text)


def _clip(values: Array) -> Array:
    values = values - np.median(values)
    limit = 6 * np.median(np.abs(values))
    return np.asarray(np.clip(values, -limit, limit))


def _sample(frames: Sequence[Atoms], number: int, atoms: int) -> list[Atoms]:
    """A fixed random choice of at most `number` frames and about `atoms` atoms."""
    chosen: list[Atoms] = []
    total = 0
    for k in np.random.default_rng(0).permutation(len(frames))[:number]:
        chosen.append(frames[k])
        total += len(frames[k])
        if total > atoms:
            break
    return chosen


def _stiffness(frames: Sequence[Atoms]) -> Witness | None:
    """How stiff bonds are, over what their lengths tell; only bonds whose force follows their length count."""
    bonds = bond_stiffness(frames)
    clear = [bond for bond in bonds if abs(bond.correlation) >= 0.5]
    if sum(bond.count for bond in clear) < 0.25 * sum(bond.count for bond in bonds) or not clear:
        return None
    weights = np.sqrt([bond.count for bond in clear])
    log = float(np.average([np.log(abs(bond.ratio)) for bond in clear], weights=weights))
    sign = float(np.average([np.sign(bond.ratio) for bond in clear], weights=weights))
    if abs(sign) < 0.5:
        return None
    names = ", ".join(bond.name for bond in sorted(clear, key=lambda bond: -bond.count)[:3])
    text = f"bonds ({names}) are {math.copysign(math.exp(log), sign):.2g} times as stiff as their lengths tell"
    return Witness(log, 0, 1, 0.6, 0.6, True, text, negative=sign < 0)


def _curvature(pairs: ClosePairs) -> Witness | None:
    """Change of forces between close frames over that of Badger's rule: also sees relaxed crystals."""
    use = np.isfinite(pairs.badger)
    restoring, badger = float(pairs.restoring[use].sum()), float(pairs.badger[use].sum())
    if use.sum() < 6 or badger == 0 or restoring == 0:
        return None
    if np.average(np.sign(pairs.restoring[use]) == np.sign(restoring), weights=pairs.badger[use]) < 0.8:
        return None
    ratio = restoring / badger
    text = f"forces change {ratio:.2g} times as fast between {use.sum()} pairs of close frames as bond lengths tell"
    return Witness(math.log(abs(ratio)), 0, 1, 0.6, 0.6, True, text, negative=ratio < 0)


def all_electron_energy(numbers: Array) -> Array:
    """Energy of all electrons of neutral atoms, eV, to about 1 % (H: 8 %).

    E(Z) = -0.768745 Z^(7/3) + Z^2/2 - 0.269900 Z^(5/3) Hartree; Schwinger, Phys. Rev. A 24, 2353 (1981).
    """
    z = np.asarray(numbers, dtype=float)
    return units.Hartree * (-0.768745 * z ** (7 / 3) + z**2 / 2 - 0.269900 * z ** (5 / 3))


def _totals(frames: Sequence[Atoms]) -> list[Witness]:
    """Total energies over those of all electrons: they cannot be lower, and all-electron codes give just these."""
    ratio = np.array([frame.info[ENERGY] / all_electron_energy(frame.numbers).sum() for frame in frames])
    middle = float(np.median(ratio))
    if middle <= 0:
        return []
    log = math.log(middle)
    text = f"total energies are {middle:.3g} times those of all electrons"
    return [
        Witness(log - 0.1, 1, 0, 0.3, math.inf, True, text),
        Witness(log, 1, 0, 0.03, 0.03, False, text, cap=6.0),
    ]


def _force_size(frames: Sequence[Atoms]) -> Witness | None:
    """The largest hundredth of forces; small ones are common (relaxed structures), large ones are not."""
    size = np.concatenate([np.linalg.norm(frame.arrays[FORCES], axis=1) for frame in frames])
    large = float(np.percentile(size, 99))
    if large == 0:
        return None
    text = f"the largest hundredth of forces starts at {large:.2g} eV/A"
    return Witness(math.log(large / 8), 0, 1, 1.0, 2.5, False, text)


def _energy_spread(frames: Sequence[Atoms]) -> Witness | None:
    """How far energies per atom lie from the sum of one energy an element."""
    rest, rank = robust_fit(frames, np.array([frame.info[ENERGY] / len(frame) for frame in frames]))
    spread = 1.4826 * float(np.median(np.abs(rest)))
    if spread == 0 or len(frames) < 3 * rank:
        return None
    below = 1.0 if rank >= 10 else math.inf  # many elements: chemistry alone makes some tenths of an eV
    text = f"energies lie {spread:.2g} eV/atom from the sum of one energy an element"
    return Witness(math.log(spread / 0.2), 1, 0, 1.0, below, False, text)


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
        slope = _median(np.abs(rest) / (np.abs(work) + 1e-12), weight)
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


def typical_spacing(frames: Sequence[Atoms]) -> tuple[float, float]:
    """Median over atoms of the nearest distance over the sum of covalent radii, and the share of noble gas atoms."""
    ratios, species = [], []
    for frame in _sample(frames, 40, 2000):
        first, second, distance, _ = neighbours(frame, 2.5)
        x = distance / (covalent_radii[frame.numbers[first]] + covalent_radii[frame.numbers[second]])
        nearest = np.full(len(frame), np.inf)
        np.minimum.at(nearest, first, x)
        ratios.append(nearest[np.isfinite(nearest)])
        species.append(frame.numbers)
    values = np.concatenate(ratios)
    noble = float(np.isin(np.concatenate(species), NOBLE).mean())
    return (float(np.median(values)) if len(values) else 1.0), noble
