"""GFN2-xTB: labels and short dynamics for small systems without periodicity.

References
----------
GFN2-xTB: C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.optimize import FIRE

from retemper.data.charge import CHARGE
from retemper.data.frames import ENERGY, FORCES

LEVEL = "GFN2-xTB"
MAX_FORCE = 20.0  # eV/A; thermal frames stay under 13
HYDROGEN_MASS = 4.0  # amu; heavy hydrogens allow 2 fs steps and leave the canonical positions as they are
TIME_STEP = 2.0  # fs
STRIDE = 20  # steps between frames: 40 fs
FRICTION = 0.02  # 1/fs
RELAX_STEPS = 20  # of FIRE, before dynamics

# Ground-state multiplicities of the free atoms (Hund's rules; NIST Atomic Spectra Database).
MULTIPLICITY = {"H": 2, "C": 3, "N": 4, "O": 3, "F": 2, "Na": 2, "P": 4, "S": 3, "Cl": 2, "Br": 2, "I": 2}


@dataclass
class Tally:
    """What was kept and what was left out, by reason."""

    kept: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Count one frame left out for `reason`."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def __str__(self) -> str:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(self.left_out.items())) or "none"
        return f"{self.kept} frames kept; left out: {reasons}"


def calculator(
    multiplicity: int | None = None, charge: float = 0.0, method: str = LEVEL, accuracy: float = 1.0
) -> Calculator:
    """An xTB calculator; `multiplicity` None takes the lowest (right for closed shells, wrong for atoms)."""
    from tblite.ase import TBLite

    return TBLite(method=method, charge=charge, multiplicity=multiplicity, accuracy=accuracy, verbosity=0)


def label(atoms: Atoms, *, config_type: str, group: str, multiplicity: int | None = None, charge: int = 0) -> Atoms:
    """Copy of `atoms` with rounded positions and labels at GFN2-xTB.

    Parameters
    ----------
    atoms
        Structure; positions [n_atoms, 3] in A are rounded to 1e-5 A first.
    config_type, group
        Written to ``info``.
    multiplicity
        Spin multiplicity 2S + 1.
    charge
        Of the whole structure; written to ``info`` where it is not zero.

    Returns
    -------
    Atoms
        With ``REF_energy`` (eV, rounded to 1e-6) and ``REF_forces`` ([n_atoms, 3], eV/A, rounded to 1e-6).

    Raises
    ------
    CalculationFailed
        The self-consistent charges did not converge.
    """
    frame = Atoms(atoms.symbols, positions=atoms.positions.round(5))
    work = frame.copy()
    work.calc = calculator(multiplicity, charge)
    frame.info.update(config_type=config_type, group=group, level=LEVEL)
    if charge:
        frame.info[CHARGE] = charge
    frame.info[ENERGY] = round(float(work.get_potential_energy()), 6)
    frame.arrays[FORCES] = work.get_forces().round(6) + 0.0
    return frame


def isolated_atoms(symbols: Iterable[str]) -> list[Atoms]:
    """Free atoms with their ground-state multiplicities, labelled; energies are the level's exact E0s."""
    atoms = {symbol: Atoms(symbol, positions=[[0.0, 0.0, 0.0]]) for symbol in symbols}
    return [
        label(atom, config_type="IsolatedAtom", group="isolated", multiplicity=MULTIPLICITY[symbol])
        for symbol, atom in atoms.items()
    ]


def label_all(structures: Iterable[tuple[Atoms, str]], group: str, tally: Tally, *, charge: int = 0) -> list[Atoms]:
    """Label (structure, config type) pairs; SCC failures and absurd forces are counted and left out."""
    labelled = []
    for atoms, config_type in structures:
        try:
            frame = label(atoms, config_type=config_type, group=group, charge=charge)
        except CalculationFailed:
            tally.drop("SCC failure")
            continue
        if np.linalg.norm(frame.arrays[FORCES], axis=1).max() > MAX_FORCE:
            tally.drop(f"force above {MAX_FORCE:g} eV/A")
            continue
        labelled.append(frame)
    tally.kept += len(labelled)
    return labelled


def trajectory(
    start: Atoms,
    rng: np.random.Generator,
    tally: Tally,
    *,
    temperature: float,
    frames: int,
    equilibrate: int,
    charge: int = 0,
) -> list[Atoms]:
    """Positions along Langevin dynamics at GFN2-xTB, `STRIDE` steps of `TIME_STEP` fs apart.

    Parameters
    ----------
    start
        Starting structure; not changed.
    rng
        Velocities and noise.
    tally
        The frames that an SCC failure costs are counted there.
    temperature
        K.
    frames, equilibrate
        Number of snapshots; steps before the first one (after a short relaxation).
    charge
        Of the whole structure.

    Returns
    -------
    list of Atoms
        At most `frames` snapshots, unlabelled.
    """
    atoms = start.copy()
    masses = atoms.get_masses()
    masses[atoms.numbers == 1] = HYDROGEN_MASS
    atoms.set_masses(masses)
    atoms.calc = calculator(charge=charge)
    snapshots: list[Atoms] = []
    try:
        FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.3, steps=RELAX_STEPS)
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
        Stationary(atoms)
        step, friction = TIME_STEP * units.fs, FRICTION / units.fs
        dynamics = Langevin(atoms, step, temperature_K=temperature, friction=friction, rng=rng, fixcm=False)
        dynamics.run(equilibrate)
        for _ in range(frames):
            dynamics.run(STRIDE)
            snapshots.append(Atoms(atoms.symbols, positions=atoms.positions - atoms.get_center_of_mass()))
    except CalculationFailed:
        for _ in range(frames - len(snapshots)):
            tally.drop("after an SCC failure in dynamics")
    return snapshots
