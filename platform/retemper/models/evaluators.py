"""What is measured: a MACE model file or any ASE calculator, as a description that worker processes can open.

A model's evaluator takes many structures at a time. MACE models run through symmetrix where
that agrees with torch in float64 on structures of this very model, else through torch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from ase import Atoms

from retemper.core import software
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


def _mark_not_finite(results: Evaluated, frames: Sequence[Atoms], stress: bool) -> Evaluated:
    for i, atoms in enumerate(frames):
        fine = np.isfinite(results.energy[i]) and np.isfinite(results.forces[i]).all()
        if stress and atoms.pbc.all():
            fine = fine and np.isfinite(results.stress[i]).all()
        if not fine and not results.reasons[i]:
            results.reasons[i] = "energy, forces or stress are not finite"
    return results


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
        results = empty(frames, [unusable(atoms) for atoms in frames])
        for i, frame in enumerate(frames):
            if results.reasons[i]:
                continue
            atoms = frame.copy()
            atoms.calc = self.calculator
            try:
                atoms.info |= charge.as_calculators_read(frame)
                self._start(charge.special(frame))
                results.energy[i] = atoms.get_potential_energy()
                results.forces[i] = np.array(atoms.get_forces(), dtype=float)
                if stress and atoms.pbc.all():
                    results.stress[i] = atoms.get_stress(voigt=False)
            except Exception as error:  # a foreign calculator raises anything; its failure is a result
                results.energy[i] = np.nan
                self.calculator = create(self.source)
                results.reasons[i] = f"{type(error).__name__}: {str(error).strip()[:200]}"
        return _mark_not_finite(results, frames, stress)

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

        results = empty(frames, [unusable(atoms) or _lacking(atoms, self.known) for atoms in frames])
        usable = [i for i, reason in enumerate(results.reasons) if not reason]
        if usable:
            head, device = str(self.subject.head), self.subject.device
            predicted = mace.predict_torch(
                self.subject.source, [frames[i] for i in usable], head, "float64", device, False, checked=False
            )
            for k, i in enumerate(usable):
                results.energy[i], results.forces[i] = predicted.energy[k], predicted.forces[k]
                results.stress[i] = predicted.stress[k]
        return _mark_not_finite(results, frames, stress)


class SymmetrixEvaluator:
    """Batches through symmetrix; structures with elements that it was not extracted for go to torch."""

    def __init__(self, subject: Subject):
        from retemper.models import symmetrix

        self.subject = subject
        self.extracted = symmetrix.extracted(subject.source, str(subject.head), subject.elements)

    def __call__(self, frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
        from retemper.models import symmetrix

        results = empty(frames, [unusable(atoms) for atoms in frames])
        usable = [i for i, reason in enumerate(results.reasons) if not reason]
        covered = {i for i in usable if set(self.subject.elements).issuperset(frames[i].numbers.tolist())}
        fast, _ = symmetrix.predict(self.extracted, [frames[i] for i in sorted(covered)])
        for k, i in enumerate(sorted(covered)):
            results.energy[i], results.forces[i], results.stress[i] = fast.energy[k], fast.forces[k], fast.stress[k]
        uncovered = [i for i in usable if i not in covered]
        if uncovered:
            slow = TorchEvaluator(self.subject)([frames[i] for i in uncovered], stress)
            for k, i in enumerate(uncovered):
                results.energy[i], results.forces[i], results.stress[i] = slow.energy[k], slow.forces[k], slow.stress[k]
                results.reasons[i] = slow.reasons[k]
        return _mark_not_finite(results, frames, stress)


def _lacking(atoms: Atoms, known: set[int]) -> str:
    from ase.data import chemical_symbols

    lacking = sorted(set(atoms.numbers.tolist()) - known)
    return f"the model lacks {', '.join(chemical_symbols[z] for z in lacking)}" if lacking else ""


# ------------------------------------------------------------------ the fastest back end that is right


def fastest(subject: Subject, frames: Sequence[Atoms], elements: Sequence[int], cache: Path) -> tuple[Subject, str]:
    """`subject` with symmetrix where the referee has no objection; and what was decided, in words.

    symmetrix is compared with torch on the referee's own structures and on `frames`; the verdict is kept in `cache`.
    """
    if subject.kind != "mace" or subject.backend == "symmetrix":
        return subject, "as asked"
    from retemper.models import referee, symmetrix

    obstacle = symmetrix.obstacle(subject.source, "float64", subject.device)
    if obstacle is not None:
        return subject, f"torch: symmetrix does not apply ({obstacle})"
    covered = set(elements)
    usable = [atoms for atoms in frames if not unusable(atoms) and covered.issuperset(atoms.numbers.tolist())]
    verdict = referee.judge(subject.source, str(subject.head), elements, usable, cache)
    if verdict.objection:
        return subject, f"torch: {verdict.objection}"
    identity = digest([subject.identity, software.packages("symmetrix")])
    fast = replace(subject, backend="symmetrix", elements=tuple(sorted(set(elements))), identity=identity)
    return fast, f"symmetrix: within {verdict.worst:.0%} of what is allowed of torch on {verdict.structures} structures"
