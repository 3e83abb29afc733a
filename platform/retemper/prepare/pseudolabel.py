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
from typing import Any

import numpy as np
from ase import Atoms

from retemper.core import sealed
from retemper.core.files import atomic_folder, digest, sha256, write_json
from retemper.core.version import __version__
from retemper.data import charge
from retemper.data.frames import (
    ENERGY,
    FORCES,
    STRESS,
    labels_hash,
    read_frames,
    stress_matrix,
    structure_hash,
    write_frames,
)
from retemper.models import mace, predict, predictions
from retemper.prepare import inputs

CACHE = Path(".cache/pseudolabels")
SOURCE = "label_source"


@dataclass(frozen=True)
class Labelled:
    """Frames with the foundation's labels, in the order they were given."""

    frames: list[Atoms]
    address: str
    reused: bool
    backend: str
    rmse: dict[str, float | None]  # original against foundation: energy meV/atom, force meV/A, stress meV/A^3


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
    cache: Path = CACHE,
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
    kept = _read(where, frames)
    if kept is not None:
        labelled, manifest = kept
    else:
        predicted = predict.predict(model, frames, head=head, dtype=dtype, device=device, progress=progress)
        labelled = [_with_labels(atoms, predicted, i) for i, atoms in enumerate(frames)]
        manifest = {"n_frames": len(frames), "backend": predicted.backend, "dtype": dtype, "head": head}
        with atomic_folder(where) as folder:
            write_frames(folder / "labels.extxyz", labelled)
            stored = read_frames(folder / "labels.extxyz") if labelled else []
            manifest |= {"sha256": sha256(folder / "labels.extxyz"), "labels_hash": labels_hash(stored)}
            sealed.write_json(folder / "manifest.json", where.name, manifest)
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
    return Labelled(result, where.name, kept is not None, str(manifest["backend"]), rmse(frames, result))


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


def _read(where: Path, frames: Sequence[Atoms]) -> tuple[list[Atoms], dict[str, Any]] | None:
    """Cached labels of `frames`; `None` where there are none. What is not as it was made is put aside."""
    if not os.path.lexists(where):
        return None
    if not where.is_dir():
        sealed.put_aside(where, "it is no folder")
        return None
    manifest: dict[str, Any] | None = sealed.read_json(where / "manifest.json", where.name)
    if manifest is None:
        return None
    file = where / "labels.extxyz"
    why = sealed.difference(where, {file.name: manifest["sha256"]})
    if not why:
        labelled = read_frames(file) if file.stat().st_size else []
        if [structure_hash(atoms) for atoms in labelled] == [structure_hash(atoms) for atoms in frames]:
            return labelled, manifest
        why = "its labels are of other structures"
    sealed.put_aside(where, why)
    return None


def rmse(original: Sequence[Atoms], labelled: Sequence[Atoms]) -> dict[str, float | None]:
    """Root mean square difference of two labellings of the same structures.

    Energies per atom in meV, force components in meV/A, stress components in meV/A^3; None where
    no frame has both labels.
    """
    energy, force, stress = [], [], []
    for a, b in zip(original, labelled, strict=True):
        if ENERGY in a.info and ENERGY in b.info:
            energy.append((a.info[ENERGY] - b.info[ENERGY]) / len(a))
        if FORCES in a.arrays and FORCES in b.arrays:
            force.append((a.arrays[FORCES] - b.arrays[FORCES]).ravel())
        if STRESS in a.info and STRESS in b.info:
            stress.append(np.ravel(stress_matrix(a.info[STRESS]) - stress_matrix(b.info[STRESS])))
    parts = {"energy": np.array(energy), "force": np.concatenate([[], *force]), "stress": np.concatenate([[], *stress])}
    return {key: float(1e3 * np.sqrt(np.mean(v**2))) if len(v) else None for key, v in parts.items()}


# ------------------------------------------------------------------ the stage


def make(
    model: Path,
    name: str,
    head: str | None,
    dtype: str,
    replay: Path,
    out: Path,
    *,
    cache: Path = CACHE,
    device: str = "cpu",
) -> None:
    """Label ``train.extxyz`` and ``valid.extxyz`` of the folder `replay` into the folder `out`."""
    manifest: dict[str, Any] = {"foundation": name, "sha256": sha256(model), "dtype": dtype, "retemper": __version__}
    with atomic_folder(out) as folder:
        for part in ("train", "valid"):
            path = replay / f"{part}.extxyz"
            frames = read_frames(path) if path.stat().st_size else []
            done = label(model, frames, name=name, head=head, dtype=dtype, cache=cache, device=device)
            write_frames(folder / path.name, done.frames)
            manifest[part] = {
                "address": done.address,
                "n_frames": len(frames),
                "labels_hash": labels_hash(done.frames),
                "structures_sha256": sha256(path),
                "labels_sha256": sha256(folder / path.name),
                "rmse_to_original": done.rmse,
            }
            how = "taken from the cache" if done.reused else f"made with {done.backend}"
            off = ", ".join(f"{key} {value:.1f}" for key, value in done.rmse.items() if value is not None)
            print(f"pseudolabel: {len(frames)} {part} structures, labels {how} ({done.address})", flush=True)
            if off:
                print(f"pseudolabel: RMSE to the original labels, meV/atom, meV/A, meV/A^3: {off}", flush=True)
        write_json(folder / "manifest.json", manifest)
