"""Laws that hold for every potential: symmetry, extensivity, forces as derivatives, conservation, free atoms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.data import chemical_symbols

from retemper.data import charge
from retemper.evaluation.robustness.context import Computed, Context, Plan, starts
from retemper.evaluation.robustness.result import Info, Result, not_measured
from retemper.evaluation.robustness.units import SHARE, Unit, share_over_groups
from retemper.models.evaluators import Evaluator
from retemper.simulation.dynamics import Trajectory, trajectory
from retemper.simulation.engine import Failure, Task
from retemper.simulation.points import single_points
from retemper.simulation.random_structures import compositions, packing

INFO = Info(
    title="Physics: share of the checks of symmetry, extensivity, derivatives, conservation and separation that hold",
    unit="%",
    direction="higher",
    good=100.0,
    bad=50.0,
    cost="some 40 single points a structure, and NVE with two time steps",
    reference="mlipaudit and ml-peg (conservation, drift); Allen and Tildesley, section 3.2 (fluctuation as dt^2)",
)


class Size(TypedDict):
    """What is computed at a level."""

    structures: int
    femtoseconds: float


class Check(TypedDict):
    """What came of one kind of check."""

    holds: int
    of: int
    worst: float
    unit: str


SIZES: dict[str, Size] = {
    "quick": {"structures": 2, "femtoseconds": 60.0},
    "standard": {"structures": 4, "femtoseconds": 400.0},
    "thorough": {"structures": 10, "femtoseconds": 5000.0},
}
ENERGY = 1e-5  # eV/atom: symmetry and extensivity
FORCE = 1e-4  # eV/A: symmetry, times 1 + the largest force
FORCE_SINGLE = 1e-3  # the same in single precision
DIFFERENCE = 1e-3  # eV/A: forces against finite differences, times 1 + the largest force
STEP, STEP_SINGLE = 2e-3, 2e-2  # A, of finite differences: for energies in double and in single precision
ROUNDINGS = 4.0  # units in the last place that an energy may be off; sums over atoms add up their own
HIDDEN = 0.1  # a check that rounding alone leaves off by this times 1 + the largest force says nothing
COMPONENTS = 8  # forces compared with finite differences, per structure
APART = 60.0  # A: beyond any cut-off
DRIFT = 2.0  # meV/atom/ps
LAW = (2.5, 6.5)  # growth of the fluctuation for twice the time step; 4 in the limit
STEPS = {True: (0.25, 0.5), False: (0.5, 1.0)}  # fs: time steps with and without hydrogen
STRIDE = 2
USES = ("level", "elements", "temperature", "seed")


def _structures(context: Context) -> list[Atoms]:
    number = SIZES[context.level]["structures"]
    frames = starts(context.of_known_elements(context.frames), number, context.seed)
    if not frames:
        rng = np.random.default_rng([context.seed, 5])
        frames = [packing(composition, rng) for composition in compositions(context.elements, number, context.seed)]
    return [Atoms(a.numbers, a.positions, cell=a.cell.array, pbc=a.pbc, info=charge.info_of(a)) for a in frames]


@dataclass(frozen=True)
class Off:
    """Difference between two structures that must agree."""

    energy: float  # eV/atom
    force: float  # eV/A, the largest


@dataclass(frozen=True)
class Symmetry:
    """A structure against what must have the same energy and forces, and forces against differences of the energy."""

    checks: dict[str, Off]  # rotation, translation, permutation, extensivity
    forces: float  # eV/A: largest difference to -dE/dx
    scale: float  # eV/A: largest force
    single: bool  # whether numbers come in single precision
    rounding: float  # eV that the energy may be off by it
    step: float  # A


def symmetry(evaluator: Evaluator, atoms: Atoms, seed: int) -> Symmetry:
    """Differences between a structure and what must have the same energy and forces, and finite differences.

    Of a structure with a charge or a spin extensivity is not checked: nobody says which copy has it.
    """
    rng = np.random.default_rng(seed)
    n = len(atoms)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= -np.sign(np.linalg.det(rotation))  # improper: an inversion as well
    rotated = atoms.copy()
    rotated.set_cell(atoms.cell.array @ rotation.T)
    rotated.positions = atoms.positions @ rotation.T
    translated = atoms.copy()
    translated.positions += rng.uniform(-3, 3, 3)
    order = rng.permutation(n)
    if atoms.pbc.any():
        double = make_supercell(atoms, np.diag([2 if atoms.pbc[0] else 1, 1, 1]) if atoms.pbc[0] else np.eye(3))
        copies = len(double) // n
    else:
        far_copy = atoms.copy()
        far_copy.positions += APART
        double, copies = atoms + far_copy, 2
    places = [(int(rng.integers(n)), int(rng.integers(3))) for _ in range(COMPONENTS)]
    first = evaluator([atoms])
    in_single = single(first.forces[0])
    step = STEP_SINGLE if in_single else STEP
    shifted = []
    for i, axis in places:
        for multiple in (-2, -1, 1, 2):
            copy = atoms.copy()
            copy.positions[i, axis] += multiple * step
            shifted.append(copy)
    evaluated = evaluator([atoms, rotated, translated, atoms[order], double, *shifted])
    reason = next((r for r in evaluated.reasons if r), "")
    if reason:
        raise RuntimeError(reason)
    energy, forces = evaluated.energy, evaluated.forces
    e = energy[5:].reshape(-1, 4)
    slope = (e[:, 0] - 8 * e[:, 1] + 8 * e[:, 2] - e[:, 3]) / (12 * step)  # five points, error of order step^4
    analytic = np.array([forces[0][i, axis] for i, axis in places])
    checks = {
        "rotation": (abs(energy[1] - energy[0]) / n, float(np.abs(forces[1] @ rotation - forces[0]).max())),
        "translation": (abs(energy[2] - energy[0]) / n, float(np.abs(forces[2] - forces[0]).max())),
        "permutation": (abs(energy[3] - energy[0]) / n, float(np.abs(forces[3] - forces[0][order]).max())),
        "extensivity": (abs(energy[4] / copies - energy[0]) / n, float(np.abs(forces[4][:n] - forces[0]).max())),
    }
    if charge.special(atoms):
        del checks["extensivity"]
    return Symmetry(
        checks={check: Off(float(energy), force) for check, (energy, force) in checks.items()},
        forces=float(np.abs(analytic + slope).max()),
        scale=float(np.abs(forces[0]).max()),
        single=in_single,
        rounding=rounding(energy[:1], in_single),
        step=step,
    )


def single(values: np.ndarray) -> bool:
    """Whether numbers were computed in single precision: all of them are numbers of it."""
    return bool((values == values.astype(np.float32)).all())


def rounding(energies: np.ndarray, in_single: bool) -> float:
    """eV that energies of this size may be off by rounding."""
    return float(ROUNDINGS * np.finfo(np.float32 if in_single else np.float64).eps * np.abs(energies).max())


def _steps(atoms: Atoms) -> tuple[float, float]:
    return STEPS[1 in atoms.numbers]


def plan(context: Context) -> Plan:
    """For each structure the symmetries and two NVE runs; then free atoms and distant pairs."""
    tasks: Plan = {}
    size = SIZES[context.level]
    for k, atoms in enumerate(_structures(context)):
        seed, subject = context.seed + k, context.subject
        arguments = {"atoms": atoms, "seed": seed}
        tasks["symmetry", k] = Task(
            symmetry, subject, arguments, f"symmetry, {atoms.get_chemical_formula()}", 40.0 * len(atoms)
        )
        for timestep in _steps(atoms):
            steps = round(size["femtoseconds"] / timestep)
            protocol = {"ensemble": "nve", "steps": steps, "timestep": timestep, "temperature": context.temperature}
            arguments = {"start": atoms, **protocol, "stride": STRIDE, "seed": seed}
            weight = float(steps * len(atoms))
            tasks["nve", k, timestep] = Task(
                trajectory, subject, arguments, f"nve, {atoms.get_chemical_formula()}", weight
            )
    tasks["far"] = Task(single_points, context.subject, {"frames": _far(context)}, "free atoms", 10.0)
    return tasks


def _far(context: Context) -> list[Atoms]:
    """Free atoms, then every pair far apart, then twice as far."""
    free = [Atoms([z], [[0.0, 0.0, 0.0]]) for z in context.elements]
    pairs = list(itertools.combinations_with_replacement(context.elements, 2))
    return free + [Atoms(pair, [[0.0, 0.0, 0.0], [r, 0.0, 0.0]]) for r in (APART, 2 * APART) for pair in pairs]


def measure(context: Context, results: Computed) -> Result:
    """Share of the checks that hold, over structures and pairs; every number in the table."""
    rows: list[list[Any]] = []
    law: list[list[Any]] = []
    failed: list[Atoms] = []
    left_out: list[str] = []
    for k, atoms in enumerate(_structures(context)):
        name = f"{atoms.get_chemical_formula()} #{k}"
        first_row = len(rows)
        checks, runs = results["symmetry", k], [results["nve", k, timestep] for timestep in _steps(atoms)]
        if isinstance(checks, Failure):
            left_out.append(f"{name}: {checks.reason}")
        else:
            rows += _symmetry_rows(name, len(atoms), checks, left_out)
        rows += _conservation_rows(name, _steps(atoms), runs, law, left_out)
        if any(not row[2] for row in rows[first_row:]):
            atoms.info |= {"failed": ", ".join(row[0] for row in rows[first_row:] if not row[2])}
            failed.append(atoms)
    free = _free(context, results["far"], left_out)
    rows += _dissociation(context, results["far"], left_out)
    if not rows:
        return not_measured(f"nothing could be computed: {left_out[0]}")
    kinds: dict[str, Check] = {}
    for check, _, holds, value, unit, _ in rows:
        summary = kinds.setdefault(check, {"holds": 0, "of": 0, "worst": 0.0, "unit": unit})
        summary["holds"] += bool(holds)
        summary["of"] += 1
        summary["worst"] = max(summary["worst"], abs(value)) if np.isfinite(value) else summary["worst"]
    units = [Unit(row[1], row[0], SHARE * bool(row[2])) for row in rows]
    value, low, high, groups = share_over_groups(units)
    return Result(
        value,
        low,
        high,
        len(rows),
        groups,
        "structures and pairs",
        {"checks": kinds, "free_atoms": free, "not_computed": left_out},
        tables={
            "checks": (("check", "structure", "holds", "value", "unit", "force_or_reason"), rows),
            "steps": (("structure", "timestep_fs", "fluctuation", "drift"), law),
        },
        failed=failed,
        plots={"steps": ("timestep_fs", "fluctuation", "structure", "log")},
        units=units,
    )


def _symmetry_rows(name: str, n: int, result: Symmetry, left_out: list[str]) -> list[list[Any]]:
    """Symmetries within rounding, and forces against differences unless rounding of the energy hides them."""
    size = 1 + result.scale
    force_limit = (FORCE_SINGLE if result.single else FORCE) * size
    energy_limit = ENERGY + result.rounding / n
    rows: list[list[Any]] = []
    for check, difference in result.checks.items():
        passed = difference.energy <= energy_limit and difference.force <= force_limit
        rows.append([check, name, passed, difference.energy, "eV/atom", difference.force])
    noise = 1.5 * result.rounding / result.step
    if noise > HIDDEN * size:
        left_out.append(f"{name}: forces against differences: rounding of the energy alone gives {noise:.2g} eV/A")
    else:
        rows.append(["forces", name, result.forces <= DIFFERENCE * size + noise, result.forces, "eV/A", ""])
    return rows


def _conservation_rows(
    name: str, steps: Sequence[float], runs: Sequence[Any], law: list[list[Any]], left_out: list[str]
) -> list[list[Any]]:
    """Drift at the smaller time step, and how the fluctuation grows with the step unless rounding makes it."""
    reasons = [run.reason if isinstance(run, Failure) else run.stopped for run in runs]
    if any(reasons):
        return [
            ["conservation", name, False, float("nan"), "meV/atom/ps", next(reason for reason in reasons if reason)]
        ]
    drifts, fluctuations = zip(*(conservation(run) for run in runs), strict=True)
    law += [[name, *row] for row in zip(steps, fluctuations, drifts, strict=True)]
    potential = runs[0].potential
    noise = 1e3 * rounding(potential, single(potential)) / len(runs[0].numbers)
    span = runs[0].planned * 1e-3
    limit = max(DRIFT, 4 * fluctuations[0] / span) + noise / span
    rows: list[list[Any]] = [["conservation", name, abs(drifts[0]) <= limit, drifts[0], "meV/atom/ps", ""]]
    if noise > fluctuations[0] > 0:
        left_out.append(f"{name}: time step: rounding of the energy alone gives {noise:.2g} meV/atom")
    else:
        growth = fluctuations[1] / fluctuations[0] if fluctuations[0] > 0 else 4.0
        rows.append(["time step", name, LAW[0] <= growth <= LAW[1], growth, "times", ""])
    return rows


def conservation(run: Trajectory) -> tuple[float, float]:
    """Drift (meV/atom/ps) of the total energy by a straight line, and the standard deviation from it (meV/atom)."""
    total = 1e3 * (run.potential + run.kinetic) / len(run.numbers)
    time = run.time * 1e-3
    slope, offset = np.polyfit(time, total, 1)
    return float(slope), float((total - slope * time - offset).std())


def _free(context: Context, result: Any, left_out: list[str]) -> dict[str, float]:
    """By element: energy of the free atom less the data's label, eV. No law says that a model must know it."""
    if isinstance(result, Failure):
        left_out.append(f"free atoms: {result.reason}")
        return {}
    left_out += [f"free atoms and pairs: {r}" for r in sorted({r for r in result.reasons if r})]
    return {
        chemical_symbols[z]: float(energy - context.free_atoms[z])
        for z, energy in zip(context.elements, result.energy, strict=False)
        if z in context.free_atoms and np.isfinite(energy)
    }


def _dissociation(context: Context, result: Any, left_out: list[str]) -> list[list[Any]]:
    """A pair far apart has the energy and forces of one twice as far: separated as the method itself separates it.

    The sum of two free atoms is another state for methods with a spin or an occupation of their own.
    """
    if isinstance(result, Failure):
        return []
    pairs = list(itertools.combinations_with_replacement(context.elements, 2))
    energies = result.energy[len(context.elements) :].reshape(2, len(pairs))
    pulls = [float(np.abs(f).max()) for f in result.forces[len(context.elements) :][: len(pairs)]]
    rows: list[list[Any]] = []
    for (a, b), energy, energy_twice_as_far, pull in zip(pairs, *energies, pulls, strict=True):
        difference = float(energy - energy_twice_as_far)
        if np.isfinite(difference):
            name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
            both = np.array([energy, energy_twice_as_far])
            limit = 2 * ENERGY + rounding(both, single(both))
            rows.append(["dissociation", name, abs(difference) <= limit and pull <= FORCE, difference, "eV", pull])
    return rows
