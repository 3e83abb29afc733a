"""Molecular dynamics of one replica on an evaluator: NVE, NVT, temperature ramps, NPT.

Integrators: velocity Verlet; Langevin in the BAOAB splitting (B. Leimkuhler and C. Matthews,
J. Chem. Phys. 138, 174102 (2013)); isotropic stochastic cell rescaling (M. Bernetti and
G. Bussi, J. Chem. Phys. 153, 114107 (2020)). Energies are conserved or sampled without any
correction of drift, so that what a model does wrong shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms, units

from retemper.data import charge
from retemper.models.evaluators import Evaluator

FRICTION = 0.01  # 1/fs
EXPLODED = 1e4  # K above the thermostat: stop (as in mlipaudit)
COMPRESSIBILITY = 0.05  # 1/GPa; of water 0.46, of salts 0.04. It sets the time of response, not the ensemble
PRESSURE_TIME = 200.0  # fs


def usual_timestep(atoms: Atoms) -> float:
    """fs: 0.5 with hydrogen, 1 without."""
    return 0.5 if (atoms.numbers == 1).any() else 1.0


@dataclass(frozen=True)
class Trajectory:
    """Stored frames of one replica."""

    numbers: np.ndarray  # [n_atoms]
    pbc: np.ndarray  # [3]
    info: dict[str, float]  # charge and spin, where the structure says them
    time: np.ndarray  # [n_frames] fs
    positions: np.ndarray  # [n_frames, n_atoms, 3] A, float32
    cells: np.ndarray  # [n_frames, 3, 3] A
    potential: np.ndarray  # [n_frames] eV
    kinetic: np.ndarray  # [n_frames] eV
    target: np.ndarray  # [n_frames] K, of the thermostat
    stopped: str  # why it ended early; "" at the end
    planned: float  # fs


@dataclass
class _Log:
    time: list[float] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    cells: list[np.ndarray] = field(default_factory=list)
    potential: list[float] = field(default_factory=list)
    kinetic: list[float] = field(default_factory=list)

    def add(self, time: float, atoms: Atoms, potential: float, kinetic: float) -> None:
        self.time.append(time)
        self.positions.append(atoms.positions.astype(np.float32))
        self.cells.append(atoms.cell.array.copy())
        self.potential.append(potential)
        self.kinetic.append(kinetic)


def velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """[n_atoms, 3] Maxwell-Boltzmann velocities (ASE units) without net momentum, scaled to `temperature` (K)."""
    masses = atoms.get_masses()[:, None]
    v = rng.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * temperature / masses)
    if len(atoms) > 1:
        v -= (masses * v).sum(axis=0) / masses.sum()
    kinetic = kinetic_energy(masses, v)
    return np.asarray(v * np.sqrt(1.5 * len(atoms) * units.kB * temperature / kinetic)) if kinetic > 0 else v


def kinetic_energy(masses: np.ndarray, v: np.ndarray) -> float:
    """eV; masses [n, 1] u, velocities [n, 3] in ASE units."""
    return float(0.5 * (masses * v**2).sum())


def trajectory(
    evaluator: Evaluator,
    start: Atoms,
    *,
    ensemble: str,
    steps: int,
    timestep: float,
    temperature: float,
    final: float | None = None,
    pressure: float = 0.0,
    stride: int = 10,
    seed: int = 0,
) -> Trajectory:
    """Frames and energies along dynamics, until the end or until the model fails.

    Parameters
    ----------
    evaluator
        The model.
    start
        Structure; velocities are drawn at `temperature`.
    ensemble
        "nve", "nvt" or "npt" (needs a cell that is periodic in three directions).
    steps, timestep
        Number, and length in fs.
    temperature, final
        K; with `final` the thermostat goes there linearly.
    pressure
        GPa, for "npt".
    stride
        Steps between stored frames.
    seed
        Of velocities and noise.
    """
    rng = np.random.default_rng(seed)
    atoms = start.copy()
    atoms.calc = None
    masses = atoms.get_masses()[:, None]
    dt = timestep * units.fs
    v = velocities(atoms, temperature, rng)
    log, target = _Log(), []
    evaluated = evaluator([atoms], ensemble == "npt")
    stopped = evaluated.reasons[0]
    decay = np.exp(-FRICTION * timestep)
    noise = np.sqrt((1 - decay**2) * units.kB / masses)
    for step in range(steps + 1):
        thermostat = temperature if final is None else temperature + (final - temperature) * step / max(1, steps)
        if not stopped:
            kinetic = kinetic_energy(masses, v)
            hot = kinetic / (1.5 * units.kB * len(atoms))
            if not np.isfinite(hot) or hot > thermostat + EXPLODED:
                stopped = f"temperature of {hot:.3g} K"
        if stopped or step % stride == 0:
            log.add(step * timestep, atoms, float(evaluated.energy[0]), kinetic_energy(masses, v))
            target.append(thermostat)
        if stopped or step == steps:
            break
        v += 0.5 * dt * evaluated.forces[0] / masses
        atoms.positions += 0.5 * dt * v
        if ensemble != "nve":
            v = decay * v + noise * np.sqrt(thermostat) * rng.normal(size=v.shape)
        atoms.positions += 0.5 * dt * v
        if ensemble == "npt":
            stopped = _rescale(atoms, v, masses, evaluated.stress[0], pressure, thermostat, timestep, rng)
        if not stopped:
            evaluated = evaluator([atoms], ensemble == "npt")
            stopped = evaluated.reasons[0]
        if not stopped:
            v += 0.5 * dt * evaluated.forces[0] / masses
    return Trajectory(
        numbers=atoms.numbers.copy(),
        pbc=atoms.pbc.copy(),
        info=charge.info_of(atoms),
        time=np.array(log.time),
        positions=np.array(log.positions),
        cells=np.array(log.cells),
        potential=np.array(log.potential),
        kinetic=np.array(log.kinetic),
        target=np.array(target),
        stopped=stopped,
        planned=steps * timestep,
    )


def _rescale(
    atoms: Atoms,
    v: np.ndarray,
    masses: np.ndarray,
    stress: np.ndarray,
    pressure: float,
    temperature: float,
    timestep: float,
    rng: np.random.Generator,
) -> str:
    """One step of stochastic cell rescaling, in place; why it cannot be made, or ""."""
    volume = atoms.get_volume()
    beta = COMPRESSIBILITY / units.GPa
    inside = 2 * kinetic_energy(masses, v) / (3 * volume) - np.trace(stress) / 3
    drift = beta * timestep / PRESSURE_TIME * (inside - pressure * units.GPa)
    noise = np.sqrt(2 * units.kB * temperature * beta * timestep / (volume * PRESSURE_TIME)) * rng.normal()
    strain = drift + noise
    if not np.isfinite(strain) or abs(strain) > 0.3:
        return f"the volume changes by {100 * (np.exp(min(strain, 10.0)) - 1):.0f} % in a step"
    factor = float(np.exp(strain / 3))
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    v /= factor
    return ""


def frame(run: Trajectory, index: int) -> Atoms:
    """A stored frame as structure, with its time (fs) and temperature (K) in ``info``."""
    atoms = Atoms(run.numbers, run.positions[index], cell=run.cells[index], pbc=run.pbc, info=run.info)
    atoms.info["time_fs"] = float(run.time[index])
    atoms.info["temperature"] = float(temperatures(run)[index])
    return atoms


def temperatures(run: Trajectory) -> np.ndarray:
    """[frames] K, kinetic."""
    return np.asarray(run.kinetic / (1.5 * units.kB * len(run.numbers)))
