"""Checks of labelled frames: labels, cell, distances, energies, levels of theory, duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.data import charge
from retemper.data.duplicates import near_pairs
from retemper.data.energies_by_element import robust_fit
from retemper.data.frame_store import Picked
from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.data.geometry import full_cells, heights, neighbours

Array = np.ndarray
FARTHEST = 1e5  # A; beyond, nothing is a structure, and neighbours are sought for ever
MIN_HEIGHT = 0.7  # A, between opposite faces of a cell
MIN_VOLUME = 1.0  # A^3 per atom of a crystal; hydrogen at 500 GPa has more
LEVEL_KEYS = ("level_of_theory", "level", "theory", "lot", "functional", "xc", "xc_functional", "dft", "basis")
CODE_KEYS = ("method", "calculator", "code", "basis_set", "pseudopotential", "head")
LARGE = 20_000  # atoms of a frame whose labels bear witness to their units
LISTED = 10  # values that a message names
ENERGY_CONFLICT = 2e-3  # eV/atom between labels of one structure
FORCE_CONFLICT = 0.03  # eV/A, RMS between sizes of forces


def check_elements(frames: Sequence[Atoms], elements: Collection[str], foundation: str) -> None:
    """Raise when frames have elements that the foundation does not know; all are listed."""
    numbers = {atomic_numbers[symbol] for symbol in elements}
    counts = Counter(int(z) for frame in frames for z in np.unique(frame.numbers) if int(z) not in numbers)
    if counts:
        listing = ", ".join(f"{chemical_symbols[z]} ({n} frames)" for z, n in sorted(counts.items()))
        raise RetemperError(
            f"The foundation {foundation} does not know elements of the data: {listing}.",
            expected=f"only {' '.join(sorted(elements, key=atomic_numbers.__getitem__))}",
            fix="choose a foundation that has them, or remove these frames from the file",
        )


def check_variation(frames: Sequence[Atoms]) -> None:
    """Raise when all energies are the same number or all forces are zero: placeholders, not labels."""
    if len(frames) < 3:
        return
    first = float(frames[0].info[ENERGY])
    constant = all(float(frame.info[ENERGY]) == first for frame in frames)
    if constant or not any(frame.arrays[FORCES].any() for frame in frames):
        raise RetemperError(
            "All energies are the same number." if constant else "All forces are zero.",
            expected="labels from a calculation",
            got=f"{len(frames)} frames, the first energy {first:g} eV",
            fix="check dataset.keys: another key may hold the labels",
        )


def frame_fault(frame: Atoms, limits: Dataset) -> str | None:
    """What is wrong with one frame with mapped labels, or without any, in words; `None` when nothing is.

    Checks, in this order: atoms, finite positions and labels, cell, size of stress and forces, net
    force, distances. Energies are judged over all frames by `energy_faults`.
    """
    if len(frame) > limits.max_atoms:
        return f"{len(frame)} atoms are above dataset.max_atoms ({limits.max_atoms})"
    fault = _numbers_fault(frame) or _cell_fault(frame)
    if fault is not None:
        return fault
    stress = float(np.abs(frame.info.get(STRESS, 0.0)).max())
    if stress > limits.max_stress:
        return (
            f"a stress of {stress:.3g} eV/A^3 ({stress / units.GPa:.0f} GPa) is above dataset.max_stress "
            f"({limits.max_stress:g})"
        )
    forces = frame.arrays.get(FORCES, np.zeros((1, 3)))
    largest = float(np.linalg.norm(forces, axis=1).max())
    if largest > limits.max_force:
        return f"a force of {largest:.1f} eV/A is above dataset.max_force ({limits.max_force:g})"
    net = float(np.linalg.norm(forces.mean(axis=0)))
    if len(frame) > 1 and net > limits.max_net_force:
        return f"a net force of {net:.3f} eV/A per atom is above dataset.max_net_force ({limits.max_net_force:g})"
    return _distance_fault(frame, limits.min_distance)


def can_be_measured(frame: Atoms) -> bool:
    """Whether a frame's numbers and cell are sound, whatever the units of its labels."""
    return len(frame) <= LARGE and _numbers_fault(frame) is None and _cell_fault(frame) is None


def _numbers_fault(frame: Atoms) -> str | None:
    if len(frame) == 0:
        return "no atoms"
    if (frame.numbers < 1).any():
        return "an atom without an element"
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell.array).all()):
        return "positions or cell are not finite"
    farthest = float(np.abs(frame.positions).max())
    if farthest > FARTHEST:
        return f"an atom lies {farthest:.2g} A from the origin (at most {FARTHEST:g} A)"
    longest = float(np.linalg.norm(frame.cell.array, axis=1).max())
    if longest > FARTHEST:
        return f"the cell is {longest:.2g} A long (at most {FARTHEST:g} A)"
    if not np.isfinite(frame.info.get(ENERGY, 0.0)):
        return "the energy is not finite"
    if not np.isfinite(frame.arrays.get(FORCES, 0.0)).all():
        return "a force is not finite"
    if not np.isfinite(frame.info.get(STRESS, 0.0)).all():
        return "the stress is not finite"
    return None


def _cell_fault(frame: Atoms) -> str | None:
    if not frame.pbc.any():
        return None
    cell = frame.cell.array
    if (np.linalg.norm(cell, axis=1)[frame.pbc] == 0).any():
        return "periodic without a cell"
    height = heights(full_cells(cell[None])[0])[frame.pbc].min()
    if height < MIN_HEIGHT:
        return f"the cell is only {height:.2f} A high"
    volume = abs(np.linalg.det(cell)) / len(frame)
    if frame.pbc.all() and volume < MIN_VOLUME:
        return f"the cell has only {volume:.2f} A^3 per atom"
    return None


def _distance_fault(frame: Atoms, limit: float) -> str | None:
    """Atoms nearer than `limit` times the sum of their covalent radii."""
    first, second, distance, _ = neighbours(frame, limit)
    if len(distance) == 0:
        return None
    radii = covalent_radii[frame.numbers]
    ratio = distance / (radii[first] + radii[second])
    worst = int(ratio.argmin())
    pair = f"{frame.symbols[first[worst]]}-{frame.symbols[second[worst]]}"
    return (
        f"{pair} at {distance[worst]:.2f} A, {ratio[worst]:.2f} times the sum of covalent radii, "
        f"is below dataset.min_distance ({limit:g})"
    )


def energy_faults(frames: Sequence[Atoms], window: float) -> tuple[list[str | None], list[str]]:
    """Frames whose energy per atom is absurd, and warnings about odd ones and mixed levels of theory.

    Frames of each charge and spin are judged on their own: an ionisation is no change of level.

    Parameters
    ----------
    frames
        Frames of more than one atom with finite labels.
    window
        Largest distance, eV/atom, from the robust sum of one energy an element.

    Returns
    -------
    faults, warnings
        A reason or `None` for each frame; sentences.

    Raises
    ------
    RetemperError
        Two groups of frames lie further apart than `window`: two levels of theory.
    """
    states: dict[str, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        states[repr(charge.special(frame))].append(k)
    faults: list[str | None] = [None] * len(frames)
    warnings: list[str] = []
    for indices in states.values():
        state_faults, state_warnings = _energy_faults(Picked(frames, indices), window)
        warnings += state_warnings
        for k, fault in zip(indices, state_faults, strict=True):
            faults[k] = fault
    return faults, warnings


def _energy_faults(frames: Sequence[Atoms], window: float) -> tuple[list[str | None], list[str]]:
    """`energy_faults` of frames with one charge and spin."""
    if len(frames) < 3:
        return [None] * len(frames), []
    residuals, _ = robust_fit(
        frames, np.fromiter((frame.info[ENERGY] / len(frame) for frame in frames), float, len(frames))
    )
    warnings = _offset(frames, residuals, window)
    faults: list[str | None] = [
        f"the energy lies {value:+.4g} eV/atom from the fit of one energy an element, outside dataset.energy_window "
        f"({window:g})"
        if abs(value) > window
        else None
        for value in residuals
    ]
    centre = float(np.median(residuals))
    limit = max(1.0, 30 * float(np.median(np.abs(residuals - centre))))
    outliers = [k for k, value in enumerate(residuals) if limit < abs(value - centre) and faults[k] is None]
    if outliers and len(outliers) <= 0.05 * len(frames):
        examples = ", ".join(f"{frames[k].info['source']} ({residuals[k]:+.2f})" for k in outliers[:5])
        warnings.append(
            f"{len(outliers)} frames have an unusual energy (eV/atom from the fit of one energy an element): {examples}"
        )
    return faults, warnings


def _offset(frames: Sequence[Atoms], residuals: Array, window: float) -> list[str]:
    """Two groups of energies with nothing between them, compared with the spread within each."""
    order = np.argsort(residuals)
    values = residuals[order]
    smallest = max(3, int(np.ceil(0.01 * len(values))))
    if len(values) < 2 * smallest:
        return []
    gaps = np.diff(values)[smallest - 1 : len(values) - smallest]
    cut = int(gaps.argmax()) + smallest
    gap = float(values[cut] - values[cut - 1])
    spread = 1.4826 * max(float(np.median(np.abs(part - np.median(part)))) for part in (values[:cut], values[cut:]))
    if gap < max(0.1, 10 * spread):
        return []
    low, high = (frames[order[k]].info["source"] for k in (0, -1))
    text = (
        f"{cut} and {len(values) - cut} frames differ by {gap:.3g} eV/atom that their compositions do not explain "
        f"(such as {low} and {high})"
    )
    if gap > window and min(cut, len(values) - cut) >= 0.05 * len(values):  # fewer are rejected one by one
        raise RetemperError(
            f"Mixed levels of theory: {text}.",
            expected="labels of one method, basis or pseudopotential set, and one zero of energy",
            fix="keep the frames of one level of theory",
        )
    return [
        f"{text}: perhaps two levels of theory, or two kinds of structures; the stage e0s tests it with the foundation"
    ]


def level_tags(frames: Sequence[Atoms]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """What info keys say about the level of theory, with counts, and warnings about codes that differ.

    Raises
    ------
    RetemperError
        A key that names the level of theory has more than one value.
    """
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for frame in frames:
        for key, value in frame.info.items():
            if key.lower() in LEVEL_KEYS + CODE_KEYS and str(value).strip():
                tags[key][str(value).strip()] += 1
    warnings = []
    for key, counts in tags.items():
        if len({value.lower() for value in counts}) < 2:
            continue
        listing = ", ".join(f"{value[:60]} ({number})" for value, number in counts.most_common(LISTED))
        listing += f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
        if key.lower() in LEVEL_KEYS:
            raise RetemperError(
                f"Mixed levels of theory: the info key {key!r} has {len(counts)} values.",
                expected="one level of theory",
                got=listing,
                fix="keep the frames of one level of theory, or remove the key where it does not matter",
            )
        warnings.append(f"the info key {key!r} has {len(counts)} values: {listing}; are all labels comparable?")
    return {key: dict(counts) for key, counts in tags.items()}, warnings


def labels_differ(a: Atoms, b: Atoms, tolerance: float) -> bool:
    """Whether two frames of the same structure within `tolerance` (A) have labels that contradict each other.

    Sizes of forces are compared, sorted by element, so that rotated copies agree. The margin
    grows with `tolerance`: stiff bonds have 60 eV/A^2.
    """
    force_a, force_b = (np.linalg.norm(frame.arrays[FORCES], axis=1) for frame in (a, b))
    margin = float(np.sqrt((force_a**2).mean())) * tolerance + ENERGY_CONFLICT
    if abs(a.info[ENERGY] - b.info[ENERGY]) / len(a) > margin:
        return True
    change = force_a[np.lexsort((force_a, a.numbers))] - force_b[np.lexsort((force_b, b.numbers))]
    return float(np.sqrt((change**2).mean())) > FORCE_CONFLICT + 60 * tolerance


def find_duplicates(frames: Sequence[Atoms], tolerance: float) -> dict[int, str]:
    """Frames to take out, by index, with the reason.

    The first of several equal frames in file order stays. Where labels contradict each
    other none stays: there is no telling which is right.
    """
    pairs = near_pairs(frames, tolerance)
    conflict: dict[int, int] = {}
    for i, j in pairs:
        if labels_differ(frames[i], frames[j], tolerance):
            conflict.setdefault(i, j)
            conflict.setdefault(j, i)
    for i, j in pairs:  # a third copy would be a choice between the two
        if (i in conflict) != (j in conflict):
            conflict.setdefault(i, j)
            conflict.setdefault(j, i)
    earlier: dict[int, list[int]] = defaultdict(list)
    for i, j in pairs:
        earlier[j].append(i)
    reasons: dict[int, str] = {}
    for k in sorted({*conflict, *earlier}):
        twin = next((i for i in earlier[k] if i not in reasons), None)
        if k in conflict:
            frame, rival = frames[k], frames[conflict[k]]
            difference = (frame.info[ENERGY] - rival.info[ENERGY]) / len(frame)
            source = rival.info["source"]
            reasons[k] = f"conflict: the structure of {source} with other labels ({difference:+.4g} eV/atom)"
        elif twin is not None:
            reasons[k] = f"duplicate of {frames[twin].info['source']}"
    return reasons
