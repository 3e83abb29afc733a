"""What a dataset holds, as a dictionary for ``manifest.json`` and as a table for the terminal."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.settings import Settings
from retemper.core.files import sha256
from retemper.core.version import __version__
from retemper.data.frames import ENERGY, FORCES, STRESS, LabelsHash, in_blocks
from retemper.data.nearness import Nearness

FORMULAS = 50  # compositions that are listed by name
BLOCK = 2_000  # frames that are in memory at a time


def describe(
    settings: Settings, sets: Mapping[str, Sequence[Atoms]], files: Sequence[Path], root: Path
) -> dict[str, Any]:
    """Counts, ranges, hashes and provenance of `sets`; the same input gives the same manifest.

    Energies are in eV, forces in eV/A, per-atom energies in eV/atom.
    """
    dataset = settings.dataset
    described = {name: describe_set(frames) for name, frames in sets.items()}
    symbols = {
        symbol for name, one in described.items() if name not in ("rejected", "unused") for symbol in one["elements"]
    }
    return {
        "system": settings.system,
        "sets": described,
        "unused": reasons(sets["unused"]),
        "rejected": reasons(sets["rejected"]),
        "elements": sorted(symbols),
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


def describe_set(frames: Iterable[Atoms]) -> dict[str, Any]:
    """Numbers of one set, in one pass; rejected ones may lack labels."""
    identity = LabelsHash()
    formulas: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    species: set[str] = set()
    groups: set[str] = set()
    number = atoms = with_stress = periodic = 0
    labels = _Labels()
    for block in in_blocks(frames, BLOCK):
        for frame in block:
            identity.add(frame)
            formulas[frame.get_chemical_formula()] += 1
            kinds[str(frame.info["config_type"])] += 1
            species.update(frame.symbols)
            if "group" in frame.info:
                groups.add(str(frame.info["group"]))
            with_stress += STRESS in frame.info
            periodic += bool(frame.pbc.any())
        number += len(block)
        atoms += sum(map(len, block))
        labels.add([frame for frame in block if FORCES in frame.arrays and len(frame)])
    return {
        "frames": number,
        "atoms": atoms,
        "hash": identity.digest(),
        "elements": sorted(species),
        "config_types": dict(kinds.most_common()),
        "groups": len(groups),
        "formulas": len(formulas),
        "compositions": dict(formulas.most_common(FORMULAS)),
        "with_stress": with_stress,
        "periodic": periodic,
        **labels.summary(),
    }


class _Labels:
    """Range of energies and size of forces, frame by frame; nothing where one is not finite."""

    def __init__(self) -> None:
        self.low, self.high, self.largest = np.inf, -np.inf, 0.0
        self.squares = self.values = 0.0

    def add(self, labelled: Sequence[Atoms]) -> None:
        if not labelled:
            return
        energies = np.array([frame.info[ENERGY] / len(frame) for frame in labelled])
        forces = np.concatenate([frame.arrays[FORCES] for frame in labelled])
        self.low, self.high = np.minimum(self.low, energies.min()), np.maximum(self.high, energies.max())
        self.squares += (forces**2).sum()
        self.values += forces.size
        self.largest = np.maximum(self.largest, np.linalg.norm(forces, axis=1).max())

    def summary(self) -> dict[str, Any]:
        if not self.values or not np.isfinite([self.low, self.high, self.squares]).all():
            return {}
        rms = float(np.sqrt(self.squares / self.values))
        return {
            "energy_per_atom": {"min": float(self.low), "max": float(self.high)},
            "force": {"rms": rms, "max": float(self.largest)},
        }


def reason_kind(reason: str) -> str:
    """A reason without its numbers and names, for counting."""
    for name in (
        "duplicate",
        "conflict",
        "gap",
        "beyond dataset.max_train",
        "another level of theory",
        "the structure it descends",
    ):
        if reason.startswith(name):
            return name
    setting = re.search(r"dataset\.(\w+)", reason)
    return setting.group(0) if setting else re.sub(r"(?<!\w)[-+]?\d[\d.]*(e[-+]?\d+)?", "..", reason)


def reasons(frames: Iterable[Atoms]) -> dict[str, int]:
    """How many frames are not used for which kind of reason."""
    return dict(Counter(reason_kind(frame.info["reason"]) for frame in frames).most_common())


def labels_used(manifest: dict[str, Any]) -> str:
    """How many labels that were read are in no set, and why; of each round as well."""

    def listed(kinds: Mapping[str, int]) -> str:
        return f" ({', '.join(f'{kind} {number}' for kind, number in kinds.items())})" if kinds else ""

    idle = {**manifest["rejected"], **manifest.get("unused", {})}  # earlier versions rejected them
    parts = [f"{sum(idle.values())} of {manifest['read']} structures not used{listed(idle)}"]
    parts += [
        f"round {entry['round']}: {entry['train'] + entry['valid']} of {entry['read']} labels used"
        + listed(entry.get("reasons", {}))
        for entry in manifest.get("rounds", [])
    ]
    return "; ".join(parts)


def summary(manifest: dict[str, Any]) -> str:
    """A short table of the manifest for the terminal."""
    lines = [
        f"dataset {manifest['system']}: {manifest['read']} frames read, {' '.join(manifest['elements'])}, "
        f"{manifest['level_of_theory']['declared']}",
        f"grouped by {manifest['grouping']['rule']} ({manifest['grouping']['groups']} groups), no structure or "
        "group in two sets",
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
    for name in ("unused", "rejected"):
        if manifest[name]:
            lines.append(f"{name}: " + ", ".join(f"{kind} {number}" for kind, number in manifest[name].items()))
    if manifest["rounds"]:
        lines.append(labels_used(manifest))
    lines += [
        f"nearness of {name} to train: {Nearness(**one).in_words()}" for name, one in manifest["nearness"].items()
    ]
    lines += [f"warning: {text}" for text in manifest["warnings"]]
    return "\n".join(lines)
