"""From a user's label keys and units to ``REF_energy``, ``REF_forces``, ``REF_stress`` in eV and Angstrom."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from retemper.config.settings import Dataset, Keys
from retemper.core.errors import RetemperError
from retemper.data import charge, frame_weights
from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.data.geometry import heights
from retemper.data.units import energy_factor, length_factor

Array = np.ndarray
Fits = Callable[[Any, int], bool]
ISOLATED = "IsolatedAtom"
APART = 8.0  # A: one atom in a cell with all heights above is a free atom
OURS = {ENERGY, FORCES, STRESS, "energy", "forces", "stress", "virial", "reason"}
MACE_READS = {"elec_temp", "dipole", "polarizability", "REF_virials", "REF_charges"}  # that is no label here
LISTED = 40  # keys that a message names
NO_CELL = "frames without a cell have a stress of zero; it is ignored"


@dataclass(frozen=True)
class Mapped:
    """Frames of one file: with labels, without, and what to tell the user."""

    frames: list[Atoms]
    rejected: list[Atoms]
    warnings: list[str]


def is_free_atom(atoms: Atoms) -> bool:
    """Whether a frame is one atom without neighbours: no periodicity, named so, or alone in a large cell."""
    if len(atoms) != 1:
        return False
    is_named = str(atoms.info.get("config_type", "")).lower() == ISOLATED.lower()
    return is_named or not atoms.pbc.any() or bool((heights(atoms.cell.array) > APART).all())


def reject(atoms: Atoms, reason: str) -> Atoms:
    """The frame with ``info["reason"]``."""
    atoms.info["reason"] = reason
    return atoms


def look_up(atoms: Atoms, key: str) -> Any:
    """A label by its key, from info, per-atom arrays or ASE's calculator results; `None` if absent."""
    if key in atoms.info:
        return atoms.info[key]
    if key in atoms.arrays:
        return atoms.arrays[key]
    results = getattr(atoms.calc, "results", {})
    return results.get(key)


def map_labels(frames: Sequence[Atoms], dataset: Dataset, origin: str) -> Mapped:
    """Give frames of one file retemper's keys and units: `stream_labels` as lists."""
    mapped: list[Atoms] = []
    rejected: list[Atoms] = []
    ignored: Counter[str] = Counter()
    for new, fault, notices in stream_labels(lambda: frames, dataset, origin):
        ignored.update(notices)
        if fault is None:
            mapped.append(new)
        else:
            rejected.append(reject(new, fault))
    return Mapped(mapped, rejected, ignored_warnings(origin, ignored))


def stream_labels(
    read: Callable[[], Iterable[Atoms]], dataset: Dataset, origin: str, setting: str = "dataset.keys"
) -> Iterator[tuple[Atoms, str | None, list[str]]]:
    """Frames of one file with retemper's keys and units.

    Parameters
    ----------
    read
        Gives the frames as they are read; they are not changed. Called again when a key is missing.
    dataset
        Settings: keys and units.
    origin
        Name of the file, for messages and ``info["source"]`` (origin:index).
    setting
        What the keys are called in messages.

    Yields
    ------
    new
        Frame with species, positions, cell, periodicity, ``REF_energy`` (eV), ``REF_forces``
        (eV/A), ``REF_stress`` (nine numbers, eV/A^3, where there is one), ``config_type``,
        ``source``, ``total_charge`` and ``total_spin`` where the user's frame says them in either spelling,
        weights of its labels where ``dataset.weights`` is "use", and the plain values of the user's info; nothing else
        that MACE would obey. Free atoms are ``IsolatedAtom`` without cell; they need no forces.
    fault
        Why the frame has no usable label; `None` when it has.
    ignored
        What of the frame was ignored, for `ignored_warnings`.

    Raises
    ------
    RetemperError
        A stress without a cell; at the end, weights of frames that no setting declares, and a key that no frame has
        (the nearest is named).
    """
    energy, length = energy_factor(dataset.energy_unit), length_factor(dataset.length_unit)
    keys = _required_keys(dataset.keys)
    missing = {label for label, _, _ in keys}
    only_atoms = True
    weighted: Counter[str] = Counter()
    for index, frame in enumerate(read()):
        missing -= {label for label, key, _ in keys if label in missing and look_up(frame, key) is not None}
        only_atoms = only_atoms and is_free_atom(frame)
        new = plain(frame, f"{origin}:{index}", dataset.keys)
        fault = _map_energy_forces(frame, new, dataset.keys, energy, length)
        extra = (MACE_READS - {dataset.keys.virial}) & {*frame.info, *frame.arrays}
        ignored = [f"frames have {key}, which is no label here; it is ignored" for key in extra]
        weights = frame_weights.stated_weights(frame)
        weighted.update(weights.keys())
        if fault is None and dataset.weights == "use":
            fault = frame_weights.fault(weights)
            new.info |= weights if fault is None else {}
        elif weights and dataset.weights == "ignore":
            ignored.append("frames have weights of their own; they are ignored (dataset.weights)")
        if fault is None and not is_free_atom(frame):
            stress, fault = _stress(frame, dataset.keys, energy, length)
            if stress is not None and _require_cell(frame, stress, f"{origin}:{index}"):
                new.info[STRESS] = stress.ravel().round(12)
            elif stress is not None:
                ignored.append(NO_CELL)
        yield new, fault, ignored
    if weighted and dataset.weights == "refuse":
        raise frame_weights.refusal(weighted, origin)
    if only_atoms:
        missing -= {"forces"}
    for label, key, fits in keys:
        if label in missing:
            raise _missing(read(), label, key, fits, dataset.keys, origin, setting)


def ignored_warnings(origin: str, ignored: Mapping[str, int]) -> list[str]:
    """What to say about what was ignored in frames of a file, by its number of frames."""
    return [f"{origin}: {number} {notice}" for notice, number in sorted(ignored.items())]


def plain(frame: Atoms, source: str, keys: Keys) -> Atoms:
    """Structure and plain info of a frame; positions and cell rounded as extxyz will write them."""
    free = is_free_atom(frame)
    new = Atoms(
        numbers=frame.numbers,
        positions=frame.positions.round(8),
        cell=None if free else frame.cell.array.round(8),
        pbc=False if free else frame.pbc,
    )
    skip = OURS.union(*charge.SPELLINGS.values()) | {keys.energy, keys.stress, keys.virial}
    for key, value in frame.info.items():
        if key in MACE_READS or frame_weights.is_weight(key):
            continue
        if key not in skip and isinstance(value, str | bool | int | float | np.generic) and len(str(value)) < 200:
            new.info["source_given" if key == "source" else key] = value
    new.info |= charge.info_of(frame, source)
    new.info["config_type"] = ISOLATED if free else str(frame.info.get("config_type", "Default"))
    new.info["source"] = source
    return new


def _map_energy_forces(frame: Atoms, new: Atoms, keys: Keys, energy: float, length: float) -> str | None:
    """Set energy and forces of `new`; returns what is wrong with them."""
    total = look_up(frame, keys.energy)
    if total is None:
        return f"no energy under {keys.energy!r}"
    try:
        new.info[ENERGY] = float(np.asarray(total, dtype=float).reshape(())) * energy
    except (TypeError, ValueError):
        return f"{keys.energy!r} is not one number"
    forces = look_up(frame, keys.forces)
    if forces is None and is_free_atom(frame):
        forces = np.zeros((1, 3))
    if forces is None:
        return f"no forces under {keys.forces!r}"
    try:
        values = np.asarray(forces, dtype=float)
    except (TypeError, ValueError):
        return f"{keys.forces!r} is not numeric"
    if values.shape != (len(frame), 3):
        return f"forces have shape {values.shape} for {len(frame)} atoms"
    new.arrays[FORCES] = (values * (energy / length)).round(8)
    return None


def _stress(frame: Atoms, keys: Keys, energy: float, length: float) -> tuple[Array | None, str | None]:
    """Stress [3, 3] in eV/A^3, or a fault; from the stress where the frame has one, else from the virial."""
    for key, is_virial in ((keys.stress, False), (keys.virial, True)):
        value = None if key is None else look_up(frame, key)
        if value is None:
            continue
        try:
            matrix = as_matrix(np.asarray(value, dtype=float))
        except (TypeError, ValueError):
            return None, f"{key!r} is none of 6, 9 or 3 x 3 numbers"
        skew = np.abs(matrix - matrix.T).max()
        if skew > 0.1 * np.abs(matrix).max():
            return None, f"{key!r} is not symmetric"
        matrix = (matrix + matrix.T) / 2
        if not is_virial:
            return matrix * energy / length**3, None
        volume = frame.cell.volume
        return (-matrix * energy / volume if volume > 0 else matrix * energy), None
    return None, None


def as_matrix(stress: Array) -> Array:
    """Stress [3, 3] from Voigt order xx yy zz yz xz xy, nine numbers, or 3 x 3; others raise ValueError."""
    if stress.shape == (6,):
        return np.asarray(voigt_6_to_full_3x3_stress(stress))
    return stress.reshape(3, 3)


def _require_cell(frame: Atoms, stress: Array, source: str) -> bool:
    """Whether the frame may have a stress; one without a periodic cell raises unless it is zero."""
    if frame.pbc.any() and frame.cell.rank == 3:
        return True
    if (stress == 0).all():
        return False
    raise RetemperError(
        f"{source}: a stress without a cell.",
        expected="a periodic frame with a three-dimensional cell, or no stress",
        got=f"pbc {frame.pbc.tolist()}, cell of rank {frame.cell.rank}",
        fix="give the frame its Lattice and pbc, or remove the stress; or set dataset.keys.stress: null",
    )


def _required_keys(keys: Keys) -> list[tuple[str, str, Fits]]:
    """Labels that some frame must have: label, its key, and whether a value of this shape could be it."""
    explicit = keys.model_fields_set
    candidates: list[tuple[str, str | None, bool, Fits]] = [
        ("energy", keys.energy, True, lambda value, n: np.size(value) == 1),
        ("forces", keys.forces, True, lambda value, n: np.shape(value) == (n, 3)),
        ("stress", keys.stress, "stress" in explicit, lambda value, n: np.size(value) in (6, 9)),
        ("virial", keys.virial, "virial" in explicit, lambda value, n: np.size(value) in (6, 9)),
    ]
    return [(label, key, fits) for label, key, needed, fits in candidates if key is not None and needed]


def _missing(
    frames: Iterable[Atoms], label: str, key: str, fits: Fits, keys: Keys, origin: str, setting: str
) -> RetemperError:
    """Error for a missing key, with the nearest key that could hold this label; keys of other labels could not."""
    candidates: dict[str, None] = {}
    other_keys = {"numbers", "positions", keys.energy, keys.forces, keys.stress, keys.virial}
    for frame in frames:
        results = getattr(frame.calc, "results", {})
        arrays = list(frame.arrays) if label == "forces" else []
        for name in sorted({*frame.info, *arrays, *results} - candidates.keys() - other_keys):
            value = look_up(frame, name)
            numeric = np.asarray(value).dtype.kind in "fiu" if not isinstance(value, str) else False
            if numeric and len(candidates) < LISTED and fits(value, len(frame)):
                candidates[name] = None
    lower = {name.lower(): name for name in sorted(candidates)}
    matches = difflib.get_close_matches(key.lower(), lower, n=1, cutoff=0.6)
    similar = [name for name in sorted(candidates) if label[:5] in name.lower()]
    nearest = lower[matches[0]] if matches else (similar[0] if similar else None)
    if nearest is not None:
        fix = f"set {setting}.{label}: {nearest} in params.yaml"
    elif label in ("stress", "virial"):
        fix = f"where the labels have no {label}, set {setting}.{label}: null in params.yaml, else its key"
    else:
        fix = f"set {setting}.{label} in params.yaml to the key of the {label}, or label the structures"
    return RetemperError(
        f"{origin}: no frame has {key!r}, the key of the {label} ({setting}.{label}).",
        got=f"keys that could be it: {', '.join(sorted(candidates))}"
        if candidates
        else "no key in the file could be it",
        fix=fix,
    )
