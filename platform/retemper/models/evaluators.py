"""What is measured: a MACE model file or any ASE calculator, as a description that worker processes can open.

A model's evaluator takes many structures at a time. MACE models run through symmetrix where
that agrees with torch in float64 on structures of this very model, else through torch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from ase import Atoms

from retemper.core import sealed, software
from retemper.core.files import digest, sha256
from retemper.data import charge
from retemper.models.calculator import PREFIX, create, ingredients

MIN_VOLUME = 0.5  # A^3/atom; denser cells have too many neighbours to compute and no meaning
SMALLEST_HEIGHT = 0.5  # A between faces of a periodic cell
FARTHEST = 1000.0  # A from the middle; a list of neighbours takes memory and time with the volume that it spans


@dataclass(frozen=True)
class Evaluated:
    """Energies, forces and stresses of several structures; those that failed are NaN with a reason."""

    energy: np.ndarray  # [n] eV
    forces: list[np.ndarray]  # n times [n_atoms, 3] eV/A
    stress: np.ndarray  # [n, 3, 3] eV/A^3, ASE's sign; NaN where not periodic in 3D or not asked for
    reasons: list[str]  # n; "" where all is well


class Evaluator(Protocol):
    """Energies, forces and, if asked, stresses of structures. Never raises for a structure: it says why."""

    def __call__(self, frames: Sequence[Atoms], stress: bool = False) -> Evaluated: ...


@dataclass(frozen=True)
class Subject:
    """A model as plain data."""

    name: str  # for people
    kind: Literal["mace", "ase"]
    source: str  # path of a model file, or "package.module:Class(keyword=value)"
    identity: str  # hash of what decides its numbers
    head: str | None = None
    backend: Literal["torch", "symmetrix", "ase"] = "ase"
    elements: tuple[int, ...] = ()  # atomic numbers that symmetrix was extracted for
    device: str = "cpu"

    def open(self) -> Evaluator:
        """The evaluator, one for each process."""
        return _open(self)

    def known(self) -> tuple[int, ...] | None:
        """Atomic numbers that the model knows; `None` where a calculator does not say."""
        if self.kind == "ase":
            return None
        from retemper.models import mace

        return tuple(mace.elements(self.source))


@functools.lru_cache(maxsize=4)
def _open(subject: Subject) -> Evaluator:
    if subject.kind == "ase":
        return AseEvaluator(subject.source)
    if subject.backend == "symmetrix":
        return SymmetrixEvaluator(subject)
    return TorchEvaluator(subject)


# ------------------------------------------------------------------ from what a user writes


def describe(spec: str, *, name: str | None = None, head: str | None = None, device: str = "cpu") -> Subject:
    """Description of a model file, or of ``ase:package.module:Class(keyword=value)``; backend torch or ase.

    Raises
    ------
    RetemperError
        A file that is not there or no MACE model, an unknown head, a class that cannot be imported.
    """
    if spec.startswith(PREFIX):
        source = spec.removeprefix(PREFIX)
        create(source)  # says now what is wrong with it
        return Subject(name or source, "ase", source, digest([source, ingredients(source)]))
    from retemper.models import mace

    path = Path(spec).resolve()
    head = mace.pick_head(path, head)
    identity = digest([sha256(path), head, software.packages("mace")])
    return Subject(name or spec, "mace", str(path), identity, head, "torch", (), device)


# ------------------------------------------------------------------ evaluators


def unusable(atoms: Atoms) -> str:
    """Why a structure cannot be computed, or ""."""
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "positions or cell are not finite"
    if len(atoms) and (reach := float(np.ptp(atoms.positions, axis=0).max()) / 2) > FARTHEST:
        return f"positions or cell are out of reach: atoms lie up to {reach:.3g} A from the middle"
    if atoms.pbc.any():
        volume = abs(np.linalg.det(atoms.cell.array))
        if volume < MIN_VOLUME * len(atoms):
            return f"cell collapsed to {volume / len(atoms):.2f} A^3/atom"
        if atoms.pbc.all():
            heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
            if heights.min() < SMALLEST_HEIGHT:
                return f"cell collapsed to a height of {heights.min():.2f} A"
    return ""


def empty(frames: Sequence[Atoms], reasons: Sequence[str]) -> Evaluated:
    """An `Evaluated` of NaN to fill."""
    n = len(frames)
    forces = [np.full((len(atoms), 3), np.nan) for atoms in frames]
    return Evaluated(np.full(n, np.nan), forces, np.full((n, 3, 3), np.nan), list(reasons))


def _mark_not_finite(found: Evaluated, frames: Sequence[Atoms], stress: bool) -> Evaluated:
    for i, atoms in enumerate(frames):
        fine = np.isfinite(found.energy[i]) and np.isfinite(found.forces[i]).all()
        if stress and atoms.pbc.all():
            fine = fine and np.isfinite(found.stress[i]).all()
        if not fine and not found.reasons[i]:
            found.reasons[i] = "energy, forces or stress are not finite"
    return found


class AseEvaluator:
    """One structure after the other through an ASE calculator. Whatever it raises is the structure's reason.

    After a failure the calculator is made anew: some are broken then (tblite ends the process). Charge and spin are in
    the info of its atoms under both spellings, where the structure says them.
    """

    def __init__(self, source: str):
        self.source = source
        self.calculator = create(source)
        self.state: dict[str, float] = {}

    def __call__(self, frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
        found = empty(frames, [unusable(atoms) for atoms in frames])
        for i, frame in enumerate(frames):
            if found.reasons[i]:
                continue
            atoms = frame.copy()
            atoms.calc = self.calculator
            try:
                atoms.info |= charge.as_calculators_read(frame)
                self._start(charge.special(frame))
                found.energy[i] = atoms.get_potential_energy()
                found.forces[i] = np.array(atoms.get_forces(), dtype=float)
                if stress and atoms.pbc.all():
                    found.stress[i] = atoms.get_stress(voigt=False)
            except Exception as error:  # a foreign calculator raises anything; its failure is a result
                found.energy[i] = np.nan
                self.calculator = create(self.source)
                found.reasons[i] = f"{type(error).__name__}: {str(error).strip()[:200]}"
        return _mark_not_finite(found, frames, stress)

    def _start(self, state: dict[str, float]) -> None:
        """Forget the last structure where charge or spin changes: ASE keeps results of the same positions."""
        if state != self.state:
            self.calculator.reset()
            self.state = state


class TorchEvaluator:
    """Batches through MACE itself in float64."""

    def __init__(self, subject: Subject):
        from retemper.models import mace

        self.subject = subject
        self.known = set(mace.elements(subject.source))

    def __call__(self, frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
        from retemper.models import mace

        found = empty(frames, [unusable(atoms) or _lacking(atoms, self.known) for atoms in frames])
        usable = [i for i, reason in enumerate(found.reasons) if not reason]
        if usable:
            head, device = str(self.subject.head), self.subject.device
            predicted = mace.predict_torch(
                self.subject.source, [frames[i] for i in usable], head, "float64", device, False, checked=False
            )
            for k, i in enumerate(usable):
                found.energy[i], found.forces[i] = predicted.energy[k], predicted.forces[k]
                found.stress[i] = predicted.stress[k]
        return _mark_not_finite(found, frames, stress)


class SymmetrixEvaluator:
    """Batches through symmetrix, one evaluator for each set of elements; other elements go to torch."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.own = set(subject.elements)
        self.extracted: Path | None = None

    def __call__(self, frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
        from retemper.models import symmetrix

        found = empty(frames, [unusable(atoms) for atoms in frames])
        groups: dict[tuple[int, ...], list[int]] = {}
        others: list[int] = []
        for i, atoms in enumerate(frames):
            if not found.reasons[i]:
                elements = tuple(np.unique(atoms.numbers).tolist())
                if self.own.issuperset(elements):
                    groups.setdefault(elements, []).append(i)
                else:
                    others.append(i)
        for elements, indices in groups.items():
            if self.extracted is None:
                self.extracted = symmetrix.extracted(self.subject.source, str(self.subject.head), self.subject.elements)
            own = symmetrix.opened(self.extracted, elements)
            symmetrix.evaluate(own, frames, indices, found.energy, found.forces, found.stress)
        if others:
            slow = TorchEvaluator(self.subject)([frames[i] for i in others], stress)
            for k, i in enumerate(others):
                found.energy[i], found.forces[i], found.stress[i] = slow.energy[k], slow.forces[k], slow.stress[k]
                found.reasons[i] = slow.reasons[k]
        return _mark_not_finite(found, frames, stress)


def _lacking(atoms: Atoms, known: set[int]) -> str:
    from ase.data import chemical_symbols

    lacking = sorted(set(atoms.numbers.tolist()) - known)
    return f"the model lacks {', '.join(chemical_symbols[z] for z in lacking)}" if lacking else ""


# ------------------------------------------------------------------ the fastest back end that is right

TOLERANCE = 1e-5  # of forces: eV/A, relative to 1 eV/A + the largest force; energies eV/atom, stresses eV/A^3 alike


def fastest(subject: Subject, frames: Sequence[Atoms], elements: Sequence[int], cache: Path) -> tuple[Subject, str]:
    """`subject` with symmetrix where it agrees with torch in float64 on `frames`; and what was decided, in words.

    The decision is kept in `cache` by content: model, elements and frames.
    """
    if subject.kind != "mace" or subject.backend == "symmetrix":
        return subject, "as asked"
    from retemper.models import symmetrix

    obstacle = symmetrix.obstacle(subject.source, "float64", subject.device)
    if obstacle is not None:
        return subject, f"torch: symmetrix does not apply ({obstacle})"
    identity = digest([subject.identity, software.packages("symmetrix")])
    fast = replace(subject, backend="symmetrix", elements=tuple(sorted(set(elements))), identity=identity)
    from retemper.data.frames import structure_hash

    key = digest([fast.identity, fast.elements, [structure_hash(atoms) for atoms in frames], TOLERANCE])
    path = cache / f"backend-{key}.json"
    kept = sealed.read_json(path, key)
    if kept is None:
        kept = {"difference": _difference(fast, frames)}
        sealed.write_json(path, key, kept)
    difference = kept["difference"]
    if difference["refused"]:
        return subject, f"torch: symmetrix refuses the model ({difference['refused']})"
    worst = max(difference["forces"], difference["energy"], difference["stress"])
    if not worst <= TOLERANCE:
        return subject, f"torch: symmetrix is off by {worst:.1e} on {len(frames)} structures"
    return fast, f"symmetrix: within {worst:.1e} of torch on {len(frames)} structures"


def _difference(fast: Subject, frames: Sequence[Atoms]) -> dict[str, Any]:
    try:
        found = SymmetrixEvaluator(fast)(frames, stress=True)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:  # its ways to refuse a model
        return {"refused": str(error)[:200] or type(error).__name__}
    right = TorchEvaluator(fast)(frames, stress=True)
    off = {"forces": 0.0, "energy": 0.0, "stress": 0.0}
    for i, atoms in enumerate(frames):
        if right.reasons[i]:
            continue
        size = 1 + float(np.abs(right.forces[i]).max())
        now = {
            "forces": float(np.abs(found.forces[i] - right.forces[i]).max()) / size,
            "energy": abs(found.energy[i] - right.energy[i]) / len(atoms) / size,
            "stress": float(np.abs(found.stress[i] - right.stress[i]).max()) / size if atoms.pbc.all() else 0.0,
        }
        for quantity, value in now.items():
            off[quantity] = max(off[quantity], float(value)) if np.isfinite(value) else 1e300
    return {"refused": "", **off}
