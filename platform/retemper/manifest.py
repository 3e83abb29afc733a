"""What a dataset holds, as a dictionary for ``manifest.json`` and as a table for the terminal."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper import __version__
from retemper.files import sha256
from retemper.frames import ENERGY, FORCES, STRESS, elements, labels_hash
from retemper.settings import Settings

FORMULAS = 50  # compositions that are listed by name


def describe(settings: Settings, sets: dict[str, list[Atoms]], files: Sequence[Path], root: Path) -> dict[str, Any]:
    """Counts, ranges, hashes and provenance of `sets`; the same input gives the same manifest.

    Energies are in eV, forces in eV/A, per-atom energies in eV/atom.
    """
    dataset = settings.dataset
    return {
        "system": settings.system,
        "sets": {name: describe_set(frames) for name, frames in sets.items()},
        "rejected": reasons(sets["rejected"]),
        "elements": elements(frame for name, part in sets.items() if name != "rejected" for frame in part),
        "sources": [
            {"file": name, "sha256": sha256(path), "bytes": path.stat().st_size}
            for name, path in zip(dataset.all_files, files, strict=True)
        ],
        "settings": dataset.model_dump(),
        "software": {
            "retemper": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("ase", "numpy", "scipy", "matscipy")},
        },
    }


def describe_set(frames: Sequence[Atoms]) -> dict[str, Any]:
    """Numbers of one set; rejected frames may lack labels."""
    formulas = Counter(frame.get_chemical_formula() for frame in frames)
    content: dict[str, Any] = {
        "frames": len(frames),
        "atoms": sum(len(frame) for frame in frames),
        "hash": labels_hash(frames),
        "elements": elements(frames),
        "config_types": dict(Counter(str(frame.info["config_type"]) for frame in frames).most_common()),
        "groups": len({frame.info["group"] for frame in frames if "group" in frame.info}),
        "formulas": len(formulas),
        "compositions": dict(formulas.most_common(FORMULAS)),
        "with_stress": sum(STRESS in frame.info for frame in frames),
        "periodic": sum(bool(frame.pbc.any()) for frame in frames),
    }
    labelled = [frame for frame in frames if FORCES in frame.arrays and len(frame)]
    energies = np.array([frame.info[ENERGY] / len(frame) for frame in labelled])
    forces = np.concatenate([frame.arrays[FORCES] for frame in labelled]) if labelled else np.zeros((0, 3))
    if len(labelled) and np.isfinite(energies).all() and np.isfinite(forces).all():
        content["energy_per_atom"] = {"min": float(energies.min()), "max": float(energies.max())}
        content["force"] = {
            "rms": float(np.sqrt((forces**2).mean())),
            "max": float(np.linalg.norm(forces, axis=1).max()),
        }
    return content


def reason_kind(reason: str) -> str:
    """A reason without its numbers and names, for counting."""
    for name in ("duplicate", "conflict", "gap", "beyond dataset.max_train", "the structure it descends"):
        if reason.startswith(name):
            return name
    setting = re.search(r"dataset\.(\w+)", reason)
    return setting.group(0) if setting else reason


def reasons(rejected: Sequence[Atoms]) -> dict[str, int]:
    """How many frames were rejected for which kind of reason."""
    return dict(Counter(reason_kind(frame.info["reason"]) for frame in rejected).most_common())


def summary(manifest: dict[str, Any]) -> str:
    """A short table of the manifest for the terminal."""
    lines = [
        f"dataset {manifest['system']}: {manifest['read']} frames read, {' '.join(manifest['elements'])}, "
        f"{manifest['level_of_theory']['declared']}",
        f"grouped by {manifest['grouping']['rule']} ({manifest['grouping']['groups']} groups), no leaks",
        f"{'set':9s} {'frames':>7s} {'atoms':>8s} {'groups':>7s} {'stress':>7s} "
        f"{'E/atom, eV':>21s} {'F rms':>8s} {'F max':>8s}",
    ]
    for name, content in manifest["sets"].items():
        energy, force = content.get("energy_per_atom"), content.get("force")
        span = f"{energy['min']:.3f} .. {energy['max']:.3f}" if energy else ""
        sizes = f"{force['rms']:8.3f} {force['max']:8.3f}" if force else ""
        lines.append(
            f"{name:9s} {content['frames']:7d} {content['atoms']:8d} {content['groups']:7d} "
            f"{content['with_stress']:7d} {span:>21s} {sizes}".rstrip()
        )
    if manifest["rejected"]:
        lines.append("rejected: " + ", ".join(f"{kind} {number}" for kind, number in manifest["rejected"].items()))
    for entry in manifest["rounds"]:
        lines.append(
            f"round {entry['round']}: {entry['train']} for training, {entry['valid']} for validation, "
            f"{entry['rejected']} rejected"
        )
    lines += [f"warning: {text}" for text in manifest["warnings"]]
    return "\n".join(lines)
