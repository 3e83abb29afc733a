"""Labels and short dynamics with SevenNet-MF-0 at r2SCAN, for periodic systems; in an environment of its own.

SevenNet needs e3nn 0.5 or newer, mace-torch pins 0.4.4: ``systems/requirements.txt`` is its environment.
The labels are a model's, not a calculation's: they say how well a strategy learns this potential
energy surface, and are as far from r2SCAN as the model is.

References
----------
SevenNet: Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024).
SevenNet-MF-0 (Materials Project, PBE and r2SCAN together): J. Kim et al., J. Am. Chem. Soc. 147, 1042 (2025).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.optimize import FIRE

from retemper.core.errors import RetemperError
from retemper.core.template import template_root
from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.systems.xtb import Tally

LEVEL = "r2SCAN (SevenNet-MF-0)"
MAX_FORCE = 20.0  # eV/A


@functools.cache
def calculator() -> Any:
    """The ASE calculator, one a process."""
    try:
        import torch
        from sevenn.calculator import SevenNetCalculator
    except ImportError as error:
        requirements = template_root() / "systems/requirements.txt"
        raise RetemperError(
            f"SevenNet is not installed: {error}.",
            expected=f"an environment with {requirements}; retemper's own cannot have it",
            fix=f"python -m venv .venv-systems && .venv-systems/bin/pip install -r {requirements}, "
            ".venv-systems/bin/pip install --no-deps retemper (in a clone: -e .), "
            "then .venv-systems/bin/python -m pipelines.system NAME",
        ) from None
    torch.set_num_threads(1)
    return SevenNetCalculator("7net-mf-0", modal="R2SCAN", device="cpu")


def label(atoms: Atoms, *, config_type: str, group: str) -> Atoms:
    """Copy of `atoms` with positions and cell rounded to 1e-5 A, and labels.

    Returns
    -------
    Atoms
        With ``REF_energy`` (eV, rounded to 1e-5), ``REF_forces`` ([n_atoms, 3], eV/A, 1e-5) and, where
        it is periodic, ``REF_stress`` (nine numbers, eV/A^3, 1e-7).
    """
    frame = Atoms(atoms.symbols, positions=atoms.positions.round(5), cell=atoms.cell.array.round(5), pbc=atoms.pbc)
    work = frame.copy()
    work.calc = calculator()
    frame.info.update(config_type=config_type, group=group, level=LEVEL)
    frame.info[ENERGY] = round(float(work.get_potential_energy()), 5)
    frame.arrays[FORCES] = np.asarray(work.get_forces(), dtype=float).round(5) + 0.0
    if frame.pbc.any():
        frame.info[STRESS] = np.asarray(work.get_stress(voigt=False), dtype=float).round(7).ravel() + 0.0
    return frame


def label_all(structures: Iterable[tuple[Atoms, str]], group: str, tally: Tally) -> list[Atoms]:
    """Label (structure, config type) pairs; absurd forces are counted and left out."""
    labelled = []
    for atoms, config_type in structures:
        frame = label(atoms, config_type=config_type, group=group)
        if np.linalg.norm(frame.arrays[FORCES], axis=1).max() > MAX_FORCE:
            tally.drop(f"force above {MAX_FORCE:g} eV/A")
        else:
            labelled.append(frame)
    tally.kept += len(labelled)
    return labelled


def free_atoms(symbols: Iterable[str]) -> list[Atoms]:
    """Free atoms with the model's own energies: what its energies of compounds refer to, not r2SCAN atoms."""
    return [
        label(Atoms(symbol, positions=[[0.0, 0.0, 0.0]]), config_type="IsolatedAtom", group="isolated")
        for symbol in symbols
    ]


def relax(atoms: Atoms, steps: int, fmax: float = 0.05) -> Atoms:
    """Copy with positions relaxed in the given cell for at most `steps` steps of FIRE."""
    work = atoms.copy()
    work.calc = calculator()
    FIRE(work, logfile=None, maxstep=0.1).run(fmax=fmax, steps=steps)
    return Atoms(work.symbols, positions=work.positions, cell=work.cell, pbc=work.pbc)


def trajectory(
    start: Atoms,
    rng: np.random.Generator,
    *,
    temperature: float,
    time_step: float,
    equilibrate: int,
    stride: int,
    frames: int,
) -> list[Atoms]:
    """Snapshots along Langevin dynamics in the given cell, unlabelled.

    Parameters
    ----------
    start
        Starting structure; not changed.
    rng
        Velocities and noise.
    temperature, time_step
        K; fs.
    equilibrate, stride
        Steps before the first snapshot, and between two.
    frames
        Number of snapshots.
    """
    atoms = start.copy()
    atoms.calc = calculator()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    Stationary(atoms)
    friction = 0.02 / units.fs
    dynamics = Langevin(atoms, time_step * units.fs, temperature_K=temperature, friction=friction, rng=rng, fixcm=False)
    dynamics.run(equilibrate)
    snapshots = []
    for number in range(frames):
        if number:
            dynamics.run(stride)
        snapshots.append(Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True))
    return snapshots
