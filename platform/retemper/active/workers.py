"""One label: what a process computes, and what may come of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from retemper.active import plugins
from retemper.config.settings import Plugin
from retemper.core import executor
from retemper.core.errors import RetemperError
from retemper.data.charge import State, state_of


@dataclass(frozen=True)
class Job:
    """One structure for the oracle."""

    key: str
    atoms: Atoms
    oracle: Plugin
    folder: str  # of its own, for what the oracle writes; goes with a success


@dataclass(frozen=True)
class Computed:
    """Numbers of one structure."""

    energy: float  # eV
    forces: np.ndarray  # [n_atoms, 3], eV/A
    stress: np.ndarray | None  # [3, 3], eV/A^3; None: the oracle has none, or the structure no cell


@dataclass(frozen=True)
class Answer:
    """What came of a job."""

    kind: Literal["done", "error", "refused", "timeout", "died"]
    label: Computed | None
    reason: str
    seconds: float

    @classmethod
    def of(cls, job: executor.Job) -> Answer:
        """That of a job that called `compute`."""
        if job.error is None:
            answer: Answer = job.value
            return answer
        if isinstance(job.error, (executor.DiedError, executor.OverranError)):
            kind: Literal["died", "timeout"] = "died" if isinstance(job.error, executor.DiedError) else "timeout"
            return cls(kind, None, str(job.error), job.seconds)
        raise job.error


def compute(job: Job) -> Answer:
    """One label in this process; what the oracle raises becomes the reason."""
    start = time.monotonic()
    folder = Path(job.folder)

    def answer(kind: Literal["done", "error", "refused"], label: Computed | None, reason: str) -> Answer:
        return Answer(kind, label, reason, time.monotonic() - start)

    try:
        module, options = plugins.load("oracles", job.oracle)
        folder.mkdir(parents=True, exist_ok=True)
        state = state_of(job.atoms)
        label = _label(module.calculator(options, job.atoms, state, folder), job.atoms, state)
    except RetemperError as error:
        return answer("refused", None, str(error))
    except Exception as error:  # a foreign calculator raises anything; its failure is a result
        return answer("error", None, f"{type(error).__name__}: {str(error).strip()[:300]}")
    shutil.rmtree(folder, ignore_errors=True)
    return answer("done", label, "")


def _label(calculator: Any, atoms: Atoms, state: State) -> Computed:
    work = atoms.copy()
    work.info = {"charge": state.charge, "spin": state.multiplicity}  # for calculators that read them there
    work.calc = calculator
    try:
        energy, forces = float(work.get_potential_energy()), np.array(work.get_forces(), dtype=float)
        stress = None
        if atoms.pbc.all() and "stress" in calculator.implemented_properties:
            stress = np.array(work.get_stress(voigt=False), dtype=float)
        if getattr(calculator, "converged", True) is False:
            raise ValueError("the electronic structure did not converge")
    finally:
        close = getattr(calculator, "close", None)
        if close is not None:
            close()
    if not (np.isfinite(energy) and np.isfinite(forces).all() and (stress is None or np.isfinite(stress).all())):
        raise ValueError("energy, forces or stress are not finite")
    return Computed(energy, forces, stress)
