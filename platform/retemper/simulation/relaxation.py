"""Relaxation of many structures and their cells side by side, and random structure search on top of it.

FIRE (E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)) with ASE's parameters, on atoms and
deformation gradient as in ASE's UnitCellFilter (E. B. Tadmor et al., Phys. Rev. B 59, 235
(1999)): the same starts take the same steps there. All structures that still move are
evaluated together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from retemper.models.evaluators import Evaluator

DT, DT_MAX, MAX_STEP = 0.1, 1.0, 0.2
N_MIN, INCREASE, DECREASE, ALPHA, ALPHA_DECREASE = 5, 1.1, 0.5, 0.1, 0.99


@dataclass
class Relaxed:
    """One structure after relaxation."""

    atoms: Atoms
    energy: float  # eV; NaN where the model failed
    fmax: float  # eV/A; largest generalised force
    steps: int
    converged: bool
    reason: str  # why it ended without converging; "" for converged or out of steps


@dataclass(frozen=True)
class Minimum:
    """Where a search ended."""

    numbers: np.ndarray  # [n_atoms]
    positions: np.ndarray  # [n_atoms, 3] A
    cell: np.ndarray  # [3, 3] A
    energy: float  # eV; NaN where the model failed
    fmax: float  # eV/A
    steps: int
    converged: bool
    reason: str  # why it ended without converging; "" for converged or out of steps

    @classmethod
    def of(cls, relaxed: Relaxed) -> Minimum:
        """Where a relaxation ended."""
        atoms, r = relaxed.atoms, relaxed
        return cls(atoms.numbers, atoms.positions, atoms.cell.array, r.energy, r.fmax, r.steps, r.converged, r.reason)

    def atoms(self, pbc: bool | np.ndarray = True) -> Atoms:
        """As structure, of this periodicity."""
        return Atoms(self.numbers, self.positions, cell=self.cell, pbc=pbc)


class _State:
    """FIRE's state of one structure: x are positions over the deformation, then n_atoms times the deformation."""

    def __init__(self, atoms: Atoms, cell: bool):
        self.atoms = atoms.copy()
        self.atoms.calc = None
        self.moving_cell = cell and bool(atoms.pbc.all())
        self.origin = atoms.cell.array.copy()
        self.x = atoms.positions.copy()
        if self.moving_cell:
            self.x = np.vstack([self.x, len(atoms) * np.eye(3)])
        self.v = np.zeros_like(self.x)
        self.dt, self.alpha, self.downhill, self.first = DT, ALPHA, 0, True
        self.energy, self.fmax, self.steps, self.reason, self.converged = np.nan, np.inf, 0, "", False

    def forces(self, forces: np.ndarray, stress: np.ndarray, pressure: float) -> np.ndarray:
        if not self.moving_cell:
            return forces
        n = len(self.atoms)
        deformation = self.x[n:] / n
        virial = -self.atoms.get_volume() * (stress + pressure * np.eye(3))
        return np.vstack([forces @ deformation, np.linalg.solve(deformation, virial.T).T / n])

    def step(self, f: np.ndarray) -> None:
        if self.first:
            self.first = False
        else:
            power = float((f * self.v).sum())
            if power > 0:
                norm = np.linalg.norm(f)
                self.v = (1 - self.alpha) * self.v + self.alpha * f / norm * np.linalg.norm(self.v)
                if self.downhill > N_MIN:
                    self.dt = min(self.dt * INCREASE, DT_MAX)
                    self.alpha *= ALPHA_DECREASE
                self.downhill += 1
            else:
                self.v[:] = 0.0
                self.alpha, self.dt, self.downhill = ALPHA, self.dt * DECREASE, 0
        self.v = self.v + self.dt * f
        move = self.dt * self.v
        length = float(np.linalg.norm(move))
        if length > MAX_STEP:
            move *= MAX_STEP / length
        self.x = self.x + move
        if self.moving_cell:
            n = len(self.atoms)
            deformation = self.x[n:] / n
            self.atoms.set_cell(self.origin @ deformation.T, scale_atoms=False)
            self.atoms.positions = self.x[:n] @ deformation.T
        else:
            self.atoms.positions = self.x
        self.steps += 1


def relax(
    evaluator: Evaluator,
    starts: Sequence[Atoms],
    *,
    fmax: float = 0.05,
    steps: int = 200,
    pressure: float = 0.0,
    cell: bool = True,
) -> list[Relaxed]:
    """Relax each of `starts`.

    Parameters
    ----------
    fmax
        eV/A; largest norm of an atom's force and of a row of the cell's generalised force.
    steps
        At most.
    pressure
        GPa.
    cell
        Whether the cells of structures that are periodic in 3D move.
    """
    states = [_State(atoms, cell) for atoms in starts]
    moving = list(states)
    for _ in range(steps + 1):
        evaluated = evaluator([state.atoms for state in moving], any(state.moving_cell for state in moving))
        unconverged = []
        for k, state in enumerate(moving):
            state.energy, state.reason = float(evaluated.energy[k]), evaluated.reasons[k]
            if state.reason:
                continue
            f = state.forces(evaluated.forces[k], evaluated.stress[k], pressure * units.GPa)
            state.fmax = float(np.sqrt((f**2).sum(axis=1).max()))
            state.converged = state.fmax < fmax
            if not state.converged and state.steps < steps:
                state.step(f)
                unconverged.append(state)
        moving = unconverged
        if not moving:
            break
    return [Relaxed(s.atoms, s.energy, s.fmax, s.steps, s.converged, s.reason) for s in states]


def search(
    evaluator: Evaluator,
    starts: Sequence[Atoms],
    *,
    pressure: float,
    rounds: int,
    steps: int,
    fmax: float,
    rattle: float,
    seed: int,
) -> list[Minimum]:
    """Relax, rattle and relax again: `rounds` relaxations in all, the structure of lowest enthalpy of them is kept.

    Parameters
    ----------
    pressure
        GPa.
    rattle
        Standard deviation of the displacements (A) between two relaxations; the cell is strained by a tenth of it.

    Returns
    -------
    list of Minimum
        Of the last relaxation of each start that the model survived, with the reason of a later one that failed.
    """
    rng = np.random.default_rng(seed)
    best = relax(evaluator, starts, fmax=fmax, steps=steps, pressure=pressure)
    for _ in range(rounds - 1):
        alive = [i for i, relaxed in enumerate(best) if not relaxed.reason]
        rattled = []
        for i in alive:
            atoms = best[i].atoms.copy()
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.1 * rattle, (3, 3))), scale_atoms=True)
            atoms.positions += rng.normal(0, rattle, atoms.positions.shape)
            rattled.append(atoms)
        for i, relaxed in zip(alive, relax(evaluator, rattled, fmax=fmax, steps=steps, pressure=pressure), strict=True):
            relaxed.steps += best[i].steps
            if relaxed.reason or _enthalpy(relaxed, pressure) <= _enthalpy(best[i], pressure):
                best[i] = relaxed
            else:
                best[i].steps = relaxed.steps
    return [Minimum.of(relaxed) for relaxed in best]


def _enthalpy(relaxed: Relaxed, pressure: float) -> float:
    return float(relaxed.energy + pressure * units.GPa * relaxed.atoms.get_volume())
