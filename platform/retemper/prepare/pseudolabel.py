"""Labels by the foundation model, addressed by their content.

The address names everything that decides the labels: the foundation's sha256, the head, the
structures in their order with charge and spin, the dtype, the versions of retemper and MACE, and the code
that labels. Labels found under an address are used again only when they are what was written there; others are put
aside and made again.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.core import sealed
from retemper.core.files import atomic_folder, digest, sha256
from retemper.core.output import log
from retemper.core.version import __version__
from retemper.data import charge
from retemper.data.frames import (
    ENERGY,
    FORCES,
    LABEL_SOURCE,
    STRESS,
    labels_hash,
    read_frames,
    stress_matrix,
    structure_hash,
    write_frames,
)
from retemper.models import heads, mace, predict, predictions
from retemper.prepare import inputs
from retemper.records.pseudolabel import LabelErrors, LabelledByHead, PseudolabelledSet, PseudolabelManifest
from retemper.records.record import Part

SOURCE = LABEL_SOURCE
STORED = 2e-8  # A; a file holds positions and cells to 1e-8


class _Manifest(Part):
    """What is kept beside labels."""

    n_frames: int
    backend: str
    dtype: str
    head: str
    sha256: str  # of the file
    labels_hash: str


@dataclass(frozen=True)
class Labelled:
    """Frames with the foundation's labels, in the order they were given."""

    frames: list[Atoms]
    address: str
    reused: bool
    backend: str
    rmse: LabelErrors  # original against foundation


def address(model: str | Path, head: str, frames: Sequence[Atoms], dtype: str) -> str:
    """16 hex digits that name the labels of `frames` by a model's `head`."""
    return digest(
        {
            "foundation": sha256(model),
            "head": head,
            "structures": [structure_hash(atoms) for atoms in frames],
            "dtype": dtype,
            "retemper": __version__,
            "mace": importlib.metadata.version("mace-torch"),
            "code": inputs.code([__name__]),
        }
    )


def label(
    model: str | Path,
    frames: Sequence[Atoms],
    *,
    name: str,
    head: str | None = None,
    dtype: str = "float64",
    device: str = "cpu",
    cache: Path,
    progress: bool = True,
) -> Labelled:
    """Label `frames` by the foundation called `name`, or take the labels from `cache`.

    Every frame gets energy, forces and, when it is periodic in three directions, stress; its
    earlier labels are replaced, and ``info["label_source"]`` says by whom. The labels are those
    of the structures as extxyz stores them (positions to 1e-8 A).

    Raises
    ------
    RetemperError
        A frame that cannot be labelled (named).
    """
    head = mace.pick_head(model, head)
    where = cache / address(model, head, frames, dtype)
    cached = _read(where, frames)
    if cached is not None:
        labelled, manifest = cached
    else:
        predicted = predict.predict(model, frames, head=head, dtype=dtype, device=device, progress=progress)
        labelled = [_with_labels(atoms, predicted, i) for i, atoms in enumerate(frames)]
        with atomic_folder(where) as folder:
            write_frames(folder / "labels.extxyz", labelled)
            stored = read_frames(folder / "labels.extxyz") if labelled else []
            manifest = _Manifest(
                n_frames=len(frames),
                backend=predicted.backend,
                dtype=dtype,
                head=head,
                sha256=sha256(folder / "labels.extxyz"),
                labels_hash=labels_hash(stored),
            )
            sealed.write_json(folder / "manifest.json", where.name, manifest.model_dump())
        labelled = stored
    result = []
    source = f"foundation:{name}:{sha256(model)[:12]}"
    for original, atoms in zip(frames, labelled, strict=True):
        copy = _without_labels(original)
        for key in (ENERGY, STRESS):
            if key in atoms.info:
                copy.info[key] = atoms.info[key]
        copy.arrays[FORCES] = atoms.arrays[FORCES]
        copy.info[SOURCE] = source
        result.append(copy)
    return Labelled(result, where.name, cached is not None, manifest.backend, rmse(frames, result))


def _without_labels(atoms: Atoms) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.calc = None
    for key in (ENERGY, STRESS, SOURCE):
        copy.info.pop(key, None)
    copy.arrays.pop(FORCES, None)
    return copy


def _with_labels(atoms: Atoms, predicted: predictions.Predictions, i: int) -> Atoms:
    bare = Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell,
        pbc=atoms.pbc,
        info=charge.info_of(atoms),
    )
    bare.info[ENERGY] = float(predicted.energy[i])
    bare.arrays[FORCES] = predicted.forces[i]
    if predictions.has_stress(atoms):
        bare.info[STRESS] = predicted.stress[i]
    return bare


def _read(where: Path, frames: Sequence[Atoms]) -> tuple[list[Atoms], _Manifest] | None:
    """Cached labels of `frames`; `None` where there are none. What is not as it was made is put aside."""
    if not os.path.lexists(where):
        return None
    if not where.is_dir():
        sealed.put_aside(where, "it is no folder")
        return None
    content = sealed.read_json(where / "manifest.json", where.name)
    if content is None:
        return None
    manifest = _Manifest.model_validate(content)
    file = where / "labels.extxyz"
    why = sealed.difference(where, {file.name: manifest.sha256})
    if not why:
        labelled = read_frames(file) if file.stat().st_size else []
        if len(labelled) == len(frames) and all(map(_same_structure, labelled, frames)):
            return labelled, manifest
        why = "its labels are of other structures"
    sealed.put_aside(where, why)
    return None


def _same_structure(stored: Atoms, atoms: Atoms) -> bool:
    """Whether a frame of a file is `atoms`, which may have more digits: rounding can then turn out otherwise."""
    if structure_hash(stored) == structure_hash(atoms):
        return True
    same = np.array_equal(stored.numbers, atoms.numbers) and np.array_equal(stored.pbc, atoms.pbc)
    same = same and charge.special(stored) == charge.special(atoms)
    return same and all(
        np.allclose(a, b, rtol=0, atol=STORED)
        for a, b in ((stored.positions, atoms.positions), (stored.cell.array, atoms.cell.array))
    )


def rmse(original: Sequence[Atoms], labelled: Sequence[Atoms]) -> LabelErrors:
    """Root mean square difference of two labellings of the same structures.

    Energies per atom in meV, force components in meV/A, stress components in meV/A^3; None where
    no frame has both labels.
    """
    energy, force, stress = [], [], []
    for a, b in zip(original, labelled, strict=True):
        if SOURCE in a.info:  # labelled by a foundation before: no original labels
            continue
        if ENERGY in a.info and ENERGY in b.info:
            energy.append((a.info[ENERGY] - b.info[ENERGY]) / len(a))
        if FORCES in a.arrays and FORCES in b.arrays:
            force.append((a.arrays[FORCES] - b.arrays[FORCES]).ravel())
        if STRESS in a.info and STRESS in b.info:
            stress.append(np.ravel(stress_matrix(a.info[STRESS]) - stress_matrix(b.info[STRESS])))

    def size(values: np.ndarray) -> float | None:
        return float(1e3 * np.sqrt(np.mean(values**2))) if len(values) else None

    every_force, every_stress = (np.concatenate([[], *parts]) for parts in (force, stress))
    return LabelErrors(energy=size(np.array(energy)), force=size(every_force), stress=size(every_stress))


# ------------------------------------------------------------------ the stage


def run(project: Project) -> PseudolabelManifest:
    """Label the sets of the stage replay; labels that exist under their address are used again."""
    with atomic_folder(project.pseudolabel) as folder:
        manifest = PseudolabelManifest(
            foundation=project.foundation.name,
            sha256=sha256(project.weights),
            head=heads.of_foundation(project),
            dtype=project.settings.pseudolabel.dtype,
            retemper=__version__,
            train=_label_set(project, "train", folder),
            valid=_label_set(project, "valid", folder),
            heads={
                head: LabelledByHead(
                    train=_label_set(project, "train", folder / head, head),
                    valid=_label_set(project, "valid", folder / head, head),
                )
                for head in heads.kept_alive(project)
            },
        )
        manifest.write(folder / "manifest.json")
    return manifest


def of_project(project: Project, frames: Sequence[Atoms], head: str | None = None) -> Labelled:
    """`frames` with the labels of the project's foundation, by `head` or the one of the settings."""
    return label(
        project.weights,
        frames,
        name=project.foundation.name,
        head=head or heads.of_foundation(project),
        dtype=project.settings.pseudolabel.dtype,
        device=project.settings.finetune.device,
        cache=project.cache("pseudolabels"),
    )


def _label_set(project: Project, name: str, folder: Path, head: str | None = None) -> PseudolabelledSet:
    """Write ``<name>.extxyz`` of the replay set with the foundation's labels into `folder`."""
    path = project.replay / f"{name}.extxyz"
    frames = read_frames(path) if path.stat().st_size else []
    labelled = of_project(project, frames, head)
    write_frames(folder / path.name, labelled.frames)
    how = "taken from the cache" if labelled.reused else f"made with {labelled.backend}"
    by = f" of head {head}" if head else ""
    log.info(f"pseudolabel: {len(frames)} {name} structures, labels{by} {how} ({labelled.address})")
    off = ", ".join(f"{key} {value:.1f}" for key, value in labelled.rmse if value is not None)
    if off:
        log.info(f"pseudolabel: RMSE to the original labels, meV/atom, meV/A, meV/A^3: {off}")
    return PseudolabelledSet(
        address=labelled.address,
        n_frames=len(frames),
        labels_hash=labels_hash(labelled.frames),
        structures_sha256=sha256(path),
        labels_sha256=sha256(folder / path.name),
        rmse_to_original=labelled.rmse,
    )
