"""Measurements on labels that depend on their units: what `retemper.data.units` judges by.

Energies and forces of close frames must fit the line integral of the force, bonds have a
stiffness that their length and elements tell, and no energy lies below that of all
electrons of all atoms. None of it needs to know the level of theory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii

from retemper.data.energies_by_element import robust_fit
from retemper.data.frames import ENERGY, FORCES
from retemper.data.geometry import neighbours
from retemper.data.units.close_pairs import CLOSE, STRAINED, ClosePairs, close_pairs
from retemper.data.units.force_laws import bond_stiffness, fit_pair_potential
from retemper.data.units.predicted import Predicted, energy_slope, force_slope
from retemper.data.units.witness import Witness, clip_outliers, sample, weighted_median

Array = np.ndarray
NOBLE = (2, 10, 18, 36, 54, 86)
PAIR_ELEMENTS = 5  # elements, at most, for the fit of a pair potential
MIN_FRAMES = 8  # fewer bear witness through free atoms and a foundation only
EXTENT = 5.0  # how much nearer to a sum of one energy an element tells total energies from those per atom
CERTAIN = 5.0  # standard deviations of a measurement that is right or wrong


def witnesses(
    frames: Sequence[Atoms], free: Mapping[int, float], predicted: Predicted | None
) -> tuple[list[Witness], list[Witness]]:
    """All measurements that `frames` allow, on labels in eV and eV/A.

    Parameters
    ----------
    frames
        Frames of more than one atom.
    free
        Energies of free atoms with the same labels, {atomic number: eV}.
    predicted
        What a foundation says about some of the frames.

    Returns
    -------
    total, per_atom
        With the energies as they are, and with energies per atom made total ones.
    """
    few = len(frames) < MIN_FRAMES
    pairs = close_pairs([] if few else frames)
    potential = None if few else _potential(frames)
    forces = [] if few else [_stiffness(frames) or _curvature(pairs), _force_size(frames)]
    if predicted is not None:
        forces.append(force_slope(predicted))
    extent = _extent(frames)
    witness_lists = []
    for per_atom in (False, True):
        energies = _energies(frames, per_atom)
        row = [*forces, _atomisation(frames, energies, free, predicted), extent[per_atom]]
        if not few:
            row += [_line_integral(pairs, per_atom) or _pair_potential(potential, per_atom)]
            row += [*_totals(frames, energies), _energy_spread(frames, energies)]
        if predicted is not None:
            row.append(energy_slope(predicted, _energies(predicted.frames, per_atom)))
        witness_lists.append([witness for witness in row if witness is not None])
    return witness_lists[0], witness_lists[1]


def _energies(frames: Sequence[Atoms], per_atom: bool) -> Array:
    """Labels as total energies [n_frames]; with `per_atom` they are taken to be energies per atom."""
    return np.array([frame.info[ENERGY] * (len(frame) if per_atom else 1) for frame in frames])


def _extent(frames: Sequence[Atoms]) -> tuple[Witness | None, Witness | None]:
    """Whether energies grow with the number of atoms; witnesses against total energies, and against those per atom.

    A sum of one energy an element is fitted to the energies as total ones and as energies per
    atom. The numbers of atoms must differ for one to leave far more than the other.
    """
    labels, sizes = _energies(frames, False), np.array([len(frame) for frame in frames])
    residuals, rank = robust_fit(frames, labels / sizes)
    as_total = float(np.median(np.abs(residuals * sizes)))
    as_per_atom = float(np.median(np.abs(robust_fit(frames, labels)[0])))
    if min(as_total, as_per_atom) == 0 or len(frames) < MIN_FRAMES + 3 * rank:  # few frames fit anything
        return None, None
    ratio = as_total / as_per_atom
    text = "as energies {} they lie {:.2g} times nearer to a sum of one energy an element"
    if ratio > EXTENT:
        return Witness(CERTAIN, 0, 0, 1, 1, True, text.format("per atom", ratio)), None
    if ratio < 1 / EXTENT:
        return None, Witness(CERTAIN, 0, 0, 1, 1, True, text.format("of whole frames", 1 / ratio))
    return None, None


def _atomisation(
    frames: Sequence[Atoms], energies: Array, free: Mapping[int, float], predicted: Predicted | None
) -> Witness | None:
    """Energy to take the frames apart into their free atoms, over what the foundation says or bonds usually have.

    From F2 (0.8 eV/atom) and mercury (0.7) to carbon (7.5) and tungsten (8.9): Kittel, Introduction to
    Solid State Physics, table 3.1. Noble gases have less and are left out.
    """
    use = [k for k, frame in enumerate(frames) if free.keys() >= set(frame.numbers.tolist())]
    noble = [np.isin(frames[k].numbers, NOBLE).mean() for k in use]
    if not use or np.mean(noble) > 0.2:
        return None
    atoms = np.array([sum(free[z] for z in frames[k].numbers.tolist()) for k in use])
    sizes = np.array([len(frames[k]) for k in use])
    value = float(np.median((atoms - energies[use]) / sizes))
    text = f"free atoms lie {value:.3g} eV/atom above the frames"
    if value < -1:
        return Witness(CERTAIN, 0, 0, 1, 1, True, text)
    if value <= 0:
        return None
    if predicted is not None:
        predicted_energy = float(np.median(predicted.binding / np.array([len(frame) for frame in predicted.frames])))
        if 0.5 < predicted_energy < 12:
            text += f" ({predicted_energy:.3g} by the foundation)"
            return Witness(math.log(value / predicted_energy), 1, 0, 0.5, 0.5, True, text, cap=30.0)
    return Witness(math.log(value / 3.5), 1, 0, 0.5, 0.9, True, text, cap=30.0)


def _line_integral(pairs: ClosePairs, per_atom: bool) -> Witness | None:
    """Energy differences of close frames over the work of the mean force between them.

    The trapezoidal rule E_b - E_a = -(F_a + F_b)/2 . (x_b - x_a) is exact to second order in
    the displacement. Pairs whose cells differ take the work V s:e of the stress s along the
    strain e as well, and are left out where there is no stress.
    """
    work = -pairs.force_work + np.where(pairs.strain > 1e-6, pairs.stress_work, 0.0)
    use = np.isfinite(work) & (np.abs(work) > 1e-9) & (pairs.rms < CLOSE) & (pairs.strain < STRAINED)
    if use.sum() < 6:
        return None
    energy = pairs.energy * (pairs.atoms if per_atom else 1)
    ratio, weight = energy[use] / work[use], np.abs(work[use]) / (pairs.rms[use] + 0.01) ** 2
    weight = np.minimum(weight, 10 * np.median(weight))
    slope = weighted_median(ratio, weight)
    spread = weighted_median(np.abs(ratio / slope - 1), weight) if slope != 0 else math.inf
    if spread > 0.35:
        return None
    text = f"energy differences of {use.sum()} pairs of close frames are {slope:.3g} times the work of the forces"
    sigma = max(0.1, spread)
    return Witness(math.log(abs(slope)), 1, -1, sigma, sigma, True, text, negative=slope < 0)


def _potential(frames: Sequence[Atoms]) -> tuple[list[Atoms], Array] | None:
    """A sample of the frames and its energies by a pair potential fitted to the forces alone, if it explains them."""
    subset = sample(frames, 60, 5000)
    species = sorted({int(z) for frame in subset for z in frame.numbers})
    if len(species) > PAIR_ELEMENTS or len(subset) < 20:
        return None
    model, explained = fit_pair_potential(subset, species)
    return (subset, model) if explained >= 0.3 else None


def _pair_potential(potential: tuple[list[Atoms], Array] | None, per_atom: bool) -> Witness | None:
    """Energies over those of a pair potential fitted to the forces alone.

    For frames that lie too far apart for the line integral. A pair potential sees part of the
    forces only, so the number is good to a factor of two or three; units differ by ten or more.
    """
    if potential is None:
        return None
    frames, model = potential
    sizes = np.array([len(frame) for frame in frames])
    x, y = (clip_outliers(robust_fit(frames, values / sizes)[0]) for values in (model, _energies(frames, per_atom)))
    norm = float(np.sqrt((x @ x) * (y @ y)))
    correlation = float(x @ y) / norm if norm > 0 else 0.0
    if correlation < 0.75:
        return None
    slope = float(np.sqrt((y @ y) / (x @ x)))
    text = (
        f"energies vary {slope:.2g} times as much as those of a pair potential fitted to the forces "
        f"(correlation {correlation:.2f})"
    )
    return Witness(math.log(slope) - 0.3, 1, -1, 0.7, 0.7, True, text)


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


def _totals(frames: Sequence[Atoms], energies: Array) -> list[Witness]:
    """Total energies over those of all electrons: they cannot be lower, and all-electron codes give just these."""
    middle = float(np.median(energies / [all_electron_energy(frame.numbers).sum() for frame in frames]))
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


def _energy_spread(frames: Sequence[Atoms], energies: Array) -> Witness | None:
    """How far energies per atom lie from the sum of one energy an element."""
    residuals, rank = robust_fit(frames, energies / [len(frame) for frame in frames])
    spread = 1.4826 * float(np.median(np.abs(residuals)))
    if spread == 0 or len(frames) < 3 * rank:
        return None
    below = 1.0 if rank >= 10 else math.inf  # many elements: chemistry alone makes some tenths of an eV
    text = f"energies lie {spread:.2g} eV/atom from the sum of one energy an element"
    return Witness(math.log(spread / 0.2), 1, 0, 1.0, below, False, text)


def typical_spacing(frames: Sequence[Atoms]) -> tuple[float, float]:
    """Median over atoms of the nearest distance over the sum of covalent radii, and the share of noble gas atoms."""
    ratios, species = [], []
    for frame in sample(frames, 40, 2000):
        first, second, distance, _ = neighbours(frame, 2.5)
        x = distance / (covalent_radii[frame.numbers[first]] + covalent_radii[frame.numbers[second]])
        nearest = np.full(len(frame), np.inf)
        np.minimum.at(nearest, first, x)
        ratios.append(nearest[np.isfinite(nearest)])
        species.append(frame.numbers)
    values = np.concatenate(ratios)
    noble = float(np.isin(np.concatenate(species), NOBLE).mean())
    return (float(np.median(values)) if len(values) else 1.0), noble
