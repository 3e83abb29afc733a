"""What a set of structures holds, and a manifest as a table for the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms

from retemper.data import nearness
from retemper.data.frames import ENERGY, FORCES, STRESS, LabelsHash, in_blocks
from retemper.records.dataset import DatasetManifest, EnergyRange, ForceSizes, StructureSet

FORMULAS = 50  # compositions that are listed by name
BLOCK = 2_000  # frames that are in memory at a time


def describe_set(frames: Iterable[Atoms]) -> StructureSet:
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
    return StructureSet(
        frames=number,
        atoms=atoms,
        hash=identity.digest(),
        elements=sorted(species),
        config_types=dict(kinds.most_common()),
        groups=len(groups),
        formulas=len(formulas),
        compositions=dict(formulas.most_common(FORMULAS)),
        with_stress=with_stress,
        periodic=periodic,
        energy_per_atom=labels.energies(),
        force=labels.forces(),
    )


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

    def _sound(self) -> bool:
        return bool(self.values and np.isfinite([self.low, self.high, self.squares]).all())

    def energies(self) -> EnergyRange | None:
        return EnergyRange(min=float(self.low), max=float(self.high)) if self._sound() else None

    def forces(self) -> ForceSizes | None:
        if not self._sound():
            return None
        return ForceSizes(rms=float(np.sqrt(self.squares / self.values)), max=float(self.largest))


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


def table(manifest: DatasetManifest) -> str:
    """A short table of the manifest for the terminal."""
    lines = [
        f"dataset {manifest.system}: {manifest.frames_read} frames read, {' '.join(manifest.elements)}, "
        f"{manifest.level_of_theory.declared}",
        f"grouped by {manifest.grouping.rule} ({manifest.grouping.groups} groups), no structure or group in two sets",
        f"{'set':9s} {'frames':>7s} {'atoms':>8s} {'groups':>7s} {'stress':>7s} "
        f"{'E/atom, eV':>21s} {'F rms':>8s} {'F max':>8s}",
    ]
    for name, part in manifest.sets.items():
        energy, force = part.energy_per_atom, part.force
        span = f"{energy.min:.3f} .. {energy.max:.3f}" if energy else ""
        sizes = f"{force.rms:8.3f} {force.max:8.3f}" if force else ""
        lines.append(
            f"{name:9s} {part.frames:7d} {part.atoms:8d} {part.groups:7d} {part.with_stress:7d} {span:>21s} "
            f"{sizes}".rstrip()
        )
    for name, kinds in (("unused", manifest.unused), ("rejected", manifest.rejected)):
        if kinds:
            lines.append(f"{name}: " + ", ".join(f"{kind} {number}" for kind, number in kinds.items()))
    if manifest.rounds:
        lines.append(manifest.labels_used())
    lines += [f"nearness of {name} to train: {nearness.in_words(near)}" for name, near in manifest.nearness.items()]
    lines += [f"warning: {text}" for text in manifest.warnings]
    return "\n".join(lines)
