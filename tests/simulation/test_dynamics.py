"""Dynamics against statistical mechanics, and relaxations against ASE's, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import UnitCellFilter
from ase.optimize import FIRE

from retemper.models.evaluators import AseEvaluator, Evaluated
from retemper.simulation import dynamics
from retemper.simulation.relaxation import relax, search

emt = AseEvaluator("ase.calculators.emt:EMT()")


def springs(frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
    """Every atom on a spring of 2 eV/A^2 to the origin."""
    energy = np.array([(a.positions**2).sum() for a in frames])
    return Evaluated(energy, [-2 * a.positions for a in frames], np.zeros((len(frames), 3, 3)), [""] * len(frames))


def nothing(frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
    """No interaction at all: an ideal gas."""
    n = len(frames)
    return Evaluated(np.zeros(n), [np.zeros((len(a), 3)) for a in frames], np.zeros((n, 3, 3)), [""] * n)


def test_thermostat_samples_the_canonical_ensemble() -> None:
    """Equipartition: a mean potential energy of 3/2 kT for each atom on a spring."""
    atoms = Atoms("H200", np.zeros((200, 3)))
    run = dynamics.trajectory(springs, atoms, ensemble="nvt", steps=4000, timestep=1.0, temperature=300.0, stride=20)
    expected = 1.5 * units.kB * 300.0
    assert run.potential[50:].mean() / 200 == pytest.approx(expected, rel=0.02)
    assert run.kinetic[50:].mean() / 200 == pytest.approx(expected, rel=0.02)


def test_barostat_samples_the_volume_of_an_ideal_gas() -> None:
    """pV = NkT, and a relative variance of 1 / N of the volume, within their sampling errors."""
    n, pressure, temperature = 100, 0.5, 300.0
    side = (n * units.kB * temperature / (pressure * units.GPa)) ** (1 / 3)
    atoms = Atoms(f"Ar{n}", np.random.default_rng(0).random((n, 3)) * side, cell=[side] * 3, pbc=True)
    how: dict[str, Any] = {"ensemble": "npt", "timestep": 50.0, "temperature": temperature, "pressure": pressure}
    run = dynamics.trajectory(nothing, atoms, steps=12000, stride=5, seed=3, **how)
    volumes = np.abs(np.linalg.det(run.cells))[200:] / side**3
    assert volumes.mean() == pytest.approx(1.0, abs=0.03)
    assert volumes.var() == pytest.approx(1 / n, rel=0.35)


def test_energy_is_conserved_to_second_order() -> None:
    atoms = bulk("Cu", cubic=True).repeat(2)
    spread = []
    for timestep in (2.0, 4.0):
        how = {"ensemble": "nve", "timestep": timestep, "temperature": 600.0, "stride": 1}
        run = dynamics.trajectory(emt, atoms, steps=round(200 / timestep), **how)
        total = (run.potential + run.kinetic) / len(atoms)
        spread.append(total.std())
    assert spread[0] < 1e-4
    assert spread[1] / spread[0] == pytest.approx(4.0, rel=0.25)


def test_ramp_follows_the_thermostat() -> None:
    how = {"ensemble": "nvt", "timestep": 2.0, "temperature": 50.0, "final": 800.0}
    run = dynamics.trajectory(springs, Atoms("H300", np.zeros((300, 3))), steps=4000, **how)
    assert run.target[0] == 50.0 and run.target[-1] == 800.0
    hot = dynamics.temperatures(run)
    assert hot[-80:].mean() == pytest.approx(run.target[-80:].mean(), rel=0.05)


def test_a_failing_model_ends_the_replica_with_its_reason() -> None:
    def fails(frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
        found = springs(frames)
        if abs(frames[0].positions[0, 0]) > 0.05:
            found.reasons[0] = "no convergence"
        return found

    run = dynamics.trajectory(
        fails, Atoms("H", [[0.0, 0, 0]]), ensemble="nvt", steps=500, timestep=1.0, temperature=300
    )
    assert run.stopped == "no convergence" and run.time[-1] < 500


def test_an_explosion_ends_the_replica() -> None:
    def explodes(frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
        found = springs(frames)
        return Evaluated(found.energy, [5.0 * a.positions + 1.0 for a in frames], found.stress, found.reasons)

    run = dynamics.trajectory(explodes, molecule("H2O"), ensemble="nvt", steps=2000, timestep=1.0, temperature=300)
    assert run.stopped.startswith("temperature of")


@pytest.mark.parametrize("pressure", [0.0, 20.0])
def test_relaxation_takes_ases_steps(pressure: float) -> None:
    rng = np.random.default_rng(0)
    starts = []
    for k in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.numbers[k] = 79
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.05, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, (4, 3))
        starts.append(atoms)
    ours = relax(emt, starts, fmax=0.01, steps=300, pressure=pressure)
    for start, found in zip(starts, ours, strict=True):
        atoms = start.copy()
        atoms.calc = EMT()
        both = UnitCellFilter(atoms, scalar_pressure=pressure * units.GPa)
        optimiser = FIRE(both, logfile=None)
        optimiser.run(fmax=0.01, steps=300)
        assert found.converged and found.steps == optimiser.nsteps
        np.testing.assert_allclose(found.atoms.cell.array, atoms.cell.array, atol=1e-6)
        assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def test_search_keeps_the_lower_enthalpy() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.3, seed=1)
    how = {"pressure": 0.1, "steps": 200, "fmax": 0.02, "rattle": 0.1, "seed": 0}
    once, more = (search(emt, [atoms], rounds=rounds, **how)[0] for rounds in (1, 3))
    assert more.energy <= once.energy + 1e-9 and more.steps > once.steps
    assert more.converged
