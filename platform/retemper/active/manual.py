"""Labels that people make: structures are written out, and taken back with labels later.

Among them are some of the training set, which nothing marks: their labels are known, and one that comes back otherwise
refuses all. What comes back is tested against the model's errors as well. A corrected file replaces what came before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.active.label import ENERGY_OFF, FORCE_OFF, bare, put
from retemper.config.project import Project
from retemper.core.errors import RetemperError, WaitingError
from retemper.core.files import digest, sha256
from retemper.core.output import log
from retemper.data import charge, rounds
from retemper.data.duplicates import near_pairs
from retemper.data.frames import ENERGY, FORCES, STRESS, labels_hash, read_frames, structure_hash, write_frames
from retemper.data.labels import map_labels, reject

SAME = 1e-3  # A RMS: what a code's own format may round away
ENERGY_SAME, FORCE_SAME = 1e-4, 1e-3  # eV/atom, eV/A: what formats may round away between two labels of a structure
GIVEN, BACK = "structures.extxyz", "labelled"  # labelled.extxyz, or labelled.* in any format of ASE


def collect(
    selection: Sequence[Atoms], project: Project, number: int, partial: bool, controls: Sequence[Atoms] = ()
) -> tuple[list[Atoms], list[Atoms]]:
    """Labels that came back for `selection`; the first call writes the structures and ends with a message.

    Labels of a round that was begun anew since, with other structures, are put aside.

    Parameters
    ----------
    controls
        Labelled structures that are given out among the others.

    Raises
    ------
    RetemperError
        Labels are still to come, belong to other structures, contradict each other, or are not those of `controls`.
    """
    settings, folder = project.settings, project.to_label / rounds.name(number)
    structures = _mix(selection, controls)
    _give(folder, structures)
    files = _labels(folder)
    keys = settings.dataset.keys
    if not files:
        place = folder.relative_to(project.root)
        raise WaitingError(
            f"{len(structures)} structures of round {number} wait for your labels in {place / GIVEN}.",
            expected=f"{place / BACK}.extxyz (or .xml, .out, ...: what ASE reads), with energies "
            f"under {keys.energy!r} and forces under {keys.forces!r}, in {settings.dataset.energy_unit}",
            fix="label them in any order; then `retemper round --resume`",
        )
    labels: dict[int, Atoms] = {}
    for path in files:
        mapped = map_labels(read_frames(path), settings.dataset, path.name)
        if mapped.rejected:
            raise RetemperError(
                f"{path} has a structure without a usable label.", got=mapped.rejected[0].info["reason"]
            )
        _match(structures, mapped.frames, labels, path)
    if settings.acquire.verify:
        _require_reproduced(structures, controls, labels)
    missing = [k for k in range(len(structures)) if k not in labels]
    if missing and not partial:
        raise WaitingError(
            f"{len(missing)} of {len(structures)} structures have no label yet.",
            got=f"labels of {len(labels)}; the first without is number {missing[0]} of {GIVEN}",
            fix="add the others; or `retemper round --resume --partial`, which records them as failed",
        )
    labelled, failed = [], []
    label_of = {id(structures[k]): label for k, label in labels.items()}
    for atoms in selection:
        copy = atoms.copy()
        label = label_of.get(id(atoms))
        copy.info["label"] = digest(
            [structure_hash(atoms), "manual", settings.dataset.level_of_theory, _content(label)]
        )
        if label is not None:
            labelled.append(put(copy, label.info[ENERGY], label.arrays[FORCES], label.info.get(STRESS)))
        else:
            failed.append(reject(copy, "no label came back"))
    return labelled, failed


def labels_digest(project: Project, number: int) -> str | None:
    """Hash of the files that hold labels of a round; `None` without any."""
    files = _labels(project.to_label / rounds.name(number))
    return digest([[path.name, sha256(path)] for path in files]) if files else None


def labels_changed(project: Project, number: int) -> bool:
    """Whether the labels that a round was made with were changed since."""
    current, recorded = labels_digest(project, number), rounds.read(project.rounds, number).returned
    return current is not None and recorded is not None and current != recorded


def _labels(folder: Path) -> list[Path]:
    """Files with labels."""
    return sorted(path for path in folder.glob(f"{BACK}*") if path.is_file())


def _mix(selection: Sequence[Atoms], controls: Sequence[Atoms]) -> list[Atoms]:
    """Both in an order that tells nothing, the same for the same structures."""
    return sorted([*selection, *controls], key=structure_hash) if controls else list(selection)


def _content(label: Atoms | None) -> str | None:
    return None if label is None else labels_hash([label])


def _require_reproduced(structures: Sequence[Atoms], controls: Sequence[Atoms], labels: Mapping[int, Atoms]) -> None:
    """Raise where a label of a known structure did not come back, or came back otherwise."""
    places = [next(k for k, atoms in enumerate(structures) if atoms is control) for control in controls]
    missing = [k for k in places if k not in labels]
    if missing:
        raise WaitingError(
            f"Structure {missing[0]} of {GIVEN} has no label yet, and is needed to verify the others.",
            expected=f"labels of structures {', '.join(map(str, places))} among the others",
            fix="label it as the others are; acquire.verify: 0 takes labels unverified",
        )
    energy_errors = [(labels[k].info[ENERGY] - structures[k].info[ENERGY]) / len(structures[k]) for k in places]
    force_errors = [
        float(np.sqrt(((labels[k].arrays[FORCES] - structures[k].arrays[FORCES]) ** 2).mean())) for k in places
    ]
    failures = [i for i, k in enumerate(places) if abs(energy_errors[i]) > ENERGY_OFF or force_errors[i] > FORCE_OFF]
    if failures:
        details = "; ".join(
            f"structure {places[i]} of {GIVEN} ({structures[places[i]].symbols}): energy {energy_errors[i]:+.4g} "
            "eV/atom, "
            f"forces {force_errors[i]:.3g} eV/A RMS"
            for i in failures
        )
        raise RetemperError(
            f"{len(failures)} of {len(places)} structures whose labels are known came back with others: no label of "
            "the "
            "round is taken.",
            expected=f"within {ENERGY_OFF:g} eV/atom and {FORCE_OFF:g} eV/A of the data's labels",
            got=details,
            fix="label all with the method, basis, zero of energy and units of the data, put the files in place of "
            "these, then `retemper round --resume`; acquire.verify: 0 takes labels unverified",
        )


def _give(folder: Path, selection: Sequence[Atoms]) -> None:
    """Write `selection` out, with charge and spin alone, unless they are there; others go, with labels to a folder."""
    path = folder / GIVEN
    if path.is_file():
        if [structure_hash(atoms) for atoms in read_frames(path)] == [structure_hash(atoms) for atoms in selection]:
            return
        if any(folder.glob(f"{BACK}*")):
            aside = next(a for k in count(1) if not (a := folder.with_name(f"{folder.name}-before-{k}")).exists())
            folder.rename(aside)
            log.info(f"round {int(folder.name)} chose other structures than before; labels of those are in {aside}")
    write_frames(path, [bare(atoms) for atoms in selection])


def _match(selection: Sequence[Atoms], frames: Sequence[Atoms], labels: dict[int, Atoms], path: Path) -> None:
    """Find the structure that each label belongs to; forces are as they were given, so atoms must not have moved.

    A label that does not say its charge and spin is of the structure with these atoms, whatever those of that are.
    """
    for position, frame in enumerate(frames):
        owners = [k for k, atoms in enumerate(selection) if _is_same(atoms, frame)]
        if len({repr(charge.special(selection[k])) for k in owners}) > 1:
            raise RetemperError(
                f"{path}: structure {position} could be several of those that were given out.",
                expected=f"{charge.CHARGE} and {charge.SPIN} in its info",
                got="; ".join(f"number {k}: {charge.in_words(selection[k])}" for k in owners),
                fix=f"say its charge and spin, as {GIVEN} does",
            )
        owner = owners[0] if owners else None
        if owner is None:
            near_copies = [i for i, j in near_pairs([*selection, frame], 100 * SAME) if j == len(selection)]
            raise RetemperError(
                f"{path}: structure {position} is none of those that were given out.",
                got="a moved, turned or reordered copy" if near_copies else frame.get_chemical_formula(),
                fix="label the structures as they are: same atoms, order, positions and cell",
            )
        if owner in labels and _differ(labels[owner], frame):
            raise RetemperError(
                f"{path}: structure {position} has another label than before for number {owner} of {GIVEN}.",
                expected="one label for each structure",
                got=f"energies of {labels[owner].info[ENERGY]:.6f} and {frame.info[ENERGY]:.6f} eV",
                fix=f"take the wrong one out of {path.parent.name}/{BACK}*",
            )
        labels.setdefault(owner, frame)


def _differ(first: Atoms, second: Atoms) -> bool:
    """Whether two labels of one structure are not the same number written twice."""
    energy = abs(first.info[ENERGY] - second.info[ENERGY]) / len(first)
    force = np.abs(first.arrays[FORCES] - second.arrays[FORCES]).max()
    return bool(energy > ENERGY_SAME or force > FORCE_SAME)


def _is_same(atoms: Atoms, frame: Atoms) -> bool:
    if len(atoms) != len(frame) or (atoms.numbers != frame.numbers).any() or (atoms.pbc != frame.pbc).any():
        return False
    if _other_state(atoms, frame):
        return False
    if atoms.pbc.any() and np.abs(atoms.cell.array - frame.cell.array).max() > SAME:
        return False
    displacement = frame.positions - atoms.positions
    if atoms.pbc.any():
        from ase.geometry import find_mic

        displacement = find_mic(displacement, atoms.cell, atoms.pbc)[0]
    return float(np.abs(displacement).max()) < SAME


def _other_state(atoms: Atoms, frame: Atoms) -> bool:
    """Whether `frame` says that it has another charge, or another spin where `atoms` names one."""
    state, stated = charge.info_of(atoms), charge.info_of(frame)
    multiplicity = state.get(charge.SPIN, stated.get(charge.SPIN))
    return stated.get(charge.CHARGE, charge.charge_of(atoms)) != charge.charge_of(atoms) or (
        stated.get(charge.SPIN, multiplicity) != multiplicity
    )
