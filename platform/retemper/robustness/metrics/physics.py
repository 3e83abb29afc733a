"""Laws that hold for every potential: symmetry, extensivity, forces as derivatives, conservation, free atoms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.data import chemical_symbols

from retemper import charge
from retemper.robustness.calculators import Evaluator
from retemper.robustness.context import Context, starts
from retemper.robustness.dynamics import trajectory
from retemper.robustness.engine import Failure, Task
from retemper.robustness.generate import compositions, packing
from retemper.robustness.outcome import Found, Info, not_measured
from retemper.robustness.points import single_points

INFO = Info(
    title="Physics: share of the checks of symmetry, extensivity, derivatives and conservation that hold",
    unit="%",
    direction="higher",
    good=100.0,
    bad=50.0,
    cost="some 40 single points a structure, and NVE with two time steps",
    reference="mlipaudit and ml-peg (conservation, drift); Allen and Tildesley, section 3.2 (fluctuation as dt^2)",
)
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"structures": 2, "femtoseconds": 60.0},
    "standard": {"structures": 4, "femtoseconds": 400.0},
    "thorough": {"structures": 10, "femtoseconds": 5000.0},
}
ENERGY = 1e-5  # eV/atom: symmetry and extensivity
FORCE = 1e-4  # eV/A: symmetry, times 1 + the largest force
DIFFERENCE = 1e-3  # eV/A: forces against finite differences, times 1 + the largest force
STEP = 2e-3  # A
COMPONENTS = 8  # forces compared with finite differences, per structure
APART = 60.0  # A: beyond any cut-off
DRIFT = 2.0  # meV/atom/ps
LAW = (2.5, 6.5)  # growth of the fluctuation for twice the time step; 4 in the limit
STEPS = {True: (0.25, 0.5), False: (0.5, 1.0)}  # fs: time steps with and without hydrogen
FREE_ATOM = 0.1  # eV
STRIDE = 2


def _structures(context: Context) -> list[Atoms]:
    number = SIZES[context.level]["structures"]
    found = starts(context.of_known_elements(context.frames), number, context.seed)
    if not found:
        rng = np.random.default_rng([context.seed, 5])
        found = [packing(composition, rng) for composition in compositions(context.elements, number, context.seed)]
    return [Atoms(a.numbers, a.positions, cell=a.cell.array, pbc=a.pbc, info=charge.info_of(a)) for a in found]


def symmetry(evaluator: Evaluator, atoms: Atoms, seed: int) -> dict[str, Any]:
    """Differences between a structure and what must have the same energy and forces, and finite differences.

    Returns
    -------
    dict
        By check: energy (eV/atom) and force (eV/A); "forces": largest difference to -dE/dx; "scale": largest force.
        Of a structure with a charge or a spin extensivity is not checked: nobody says which copy has it.
    """
    rng = np.random.default_rng(seed)
    n = len(atoms)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= -np.sign(np.linalg.det(rotation))  # improper: an inversion as well
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    moved = atoms.copy()
    moved.positions += rng.uniform(-3, 3, 3)
    order = rng.permutation(n)
    if atoms.pbc.any():
        double = make_supercell(atoms, np.diag([2 if atoms.pbc[0] else 1, 1, 1]) if atoms.pbc[0] else np.eye(3))
        copies = len(double) // n
    else:
        other = atoms.copy()
        other.positions += APART
        double, copies = atoms + other, 2
    places = [(int(rng.integers(n)), int(rng.integers(3))) for _ in range(COMPONENTS)]
    shifted = []
    for i, axis in places:
        for multiple in (-2, -1, 1, 2):
            copy = atoms.copy()
            copy.positions[i, axis] += multiple * STEP
            shifted.append(copy)
    found = evaluator([atoms, turned, moved, atoms[order], double, *shifted])
    reason = next((r for r in found.reasons if r), "")
    if reason:
        raise RuntimeError(reason)
    energy, forces = found.energy, found.forces
    e = energy[5:].reshape(-1, 4)
    slope = (e[:, 0] - 8 * e[:, 1] + 8 * e[:, 2] - e[:, 3]) / (12 * STEP)  # five points, error of order STEP^4
    analytic = np.array([forces[0][i, axis] for i, axis in places])
    checks = {
        "rotation": (abs(energy[1] - energy[0]) / n, float(np.abs(forces[1] @ rotation - forces[0]).max())),
        "translation": (abs(energy[2] - energy[0]) / n, float(np.abs(forces[2] - forces[0]).max())),
        "permutation": (abs(energy[3] - energy[0]) / n, float(np.abs(forces[3] - forces[0][order]).max())),
        "extensivity": (abs(energy[4] / copies - energy[0]) / n, float(np.abs(forces[4][:n] - forces[0]).max())),
        "forces": float(np.abs(analytic + slope).max()),
        "scale": float(np.abs(forces[0]).max()),
    }
    if charge.special(atoms):
        del checks["extensivity"]
    return checks


def _steps(atoms: Atoms) -> tuple[float, float]:
    return STEPS[1 in atoms.numbers]


def plan(context: Context) -> list[Task]:
    """For each structure the symmetries and two NVE runs; then free atoms and distant pairs."""
    tasks = []
    size = SIZES[context.level]
    for k, atoms in enumerate(_structures(context)):
        tasks.append(
            Task(
                symmetry,
                context.subject,
                {"atoms": atoms, "seed": context.seed + k},
                f"symmetry, {atoms.symbols}",
                40.0 * len(atoms),
            )
        )
        for timestep in _steps(atoms):
            steps = round(size["femtoseconds"] / timestep)
            how = {"ensemble": "nve", "steps": steps, "timestep": timestep, "temperature": context.temperature}
            arguments = {"start": atoms, **how, "stride": STRIDE, "seed": context.seed + k}
            tasks.append(
                Task(trajectory, context.subject, arguments, f"nve, {atoms.symbols}", float(steps * len(atoms)))
            )
    tasks.append(Task(single_points, context.subject, {"frames": _far(context)}, "free atoms", 10.0))
    return tasks


def _far(context: Context) -> list[Atoms]:
    """Free atoms, then every pair far apart."""
    single = [Atoms([z], [[0.0, 0.0, 0.0]]) for z in context.elements]
    pairs = itertools.combinations_with_replacement(context.elements, 2)
    return single + [Atoms([a, b], [[0.0, 0.0, 0.0], [APART, 0.0, 0.0]]) for a, b in pairs]


def measure(context: Context, results: Sequence[Any]) -> Found:
    """Share of the checks that hold; every number in the table."""
    rows: list[list[Any]] = []
    law: list[list[Any]] = []
    failed: list[Atoms] = []
    not_computed: list[str] = []
    for k, atoms in enumerate(_structures(context)):
        name = f"{atoms.get_chemical_formula()} #{k}"
        before = len(rows)
        checks, *runs = results[3 * k : 3 * k + 3]
        if isinstance(checks, Failure):
            not_computed.append(f"{name}: {checks.reason}")
        else:
            size = 1 + checks["scale"]
            for check in ("rotation", "translation", "permutation", "extensivity"):
                if check not in checks:
                    continue
                energy, force = checks[check]
                rows.append([check, name, energy <= ENERGY and force <= FORCE * size, energy, "eV/atom", force])
            rows.append(["forces", name, checks["forces"] <= DIFFERENCE * size, checks["forces"], "eV/A", ""])
        if any(isinstance(run, Failure) or run["stopped"] for run in runs):
            reasons = [run.reason if isinstance(run, Failure) else run["stopped"] for run in runs]
            reason = next(why for why in reasons if why)
            rows.append(["conservation", name, False, float("nan"), "meV/atom/ps", reason])
        else:
            fluctuations = []
            for timestep, run in zip(_steps(atoms), runs, strict=True):
                drift, fluctuation = conservation(run)
                fluctuations.append(fluctuation)
                law.append([name, timestep, fluctuation, drift])
            span = runs[0]["planned"] * 1e-3
            drift, fluctuation = law[-2][3], fluctuations[0]
            limit = max(DRIFT, 4 * fluctuation / span)
            rows.append(["conservation", name, abs(drift) <= limit, drift, "meV/atom/ps", ""])
            growth = fluctuations[1] / fluctuations[0] if fluctuations[0] > 0 else 4.0
            rows.append(["time step", name, LAW[0] <= growth <= LAW[1], growth, "times", ""])
        if any(not row[2] for row in rows[before:]):
            atoms.info |= {"failed": ", ".join(row[0] for row in rows[before:] if not row[2])}
            failed.append(atoms)
    rows += _free(context, results[-1], not_computed)
    if not rows:
        return not_measured(f"nothing could be computed: {not_computed[0]}")
    hold = sum(bool(row[2]) for row in rows)
    kinds: dict[str, Any] = {}
    for check, _, holds, value, unit, _ in rows:
        own = kinds.setdefault(check, {"holds": 0, "of": 0, "worst": 0.0, "unit": unit})
        own["holds"] += bool(holds)
        own["of"] += 1
        own["worst"] = max(own["worst"], abs(value)) if np.isfinite(value) else own["worst"]
    tables = {
        "checks": (("check", "structure", "holds", "value", "unit", "force_or_reason"), rows),
        "steps": (("structure", "timestep_fs", "fluctuation", "drift"), law),
    }
    plots = {"steps": ("timestep_fs", "fluctuation", "structure", "log")}
    details = {"checks": kinds, "not_computed": not_computed}
    return Found(100 * hold / len(rows), None, None, len(rows), details, tables=tables, failed=failed, plots=plots)


def conservation(run: dict[str, Any]) -> tuple[float, float]:
    """Drift (meV/atom/ps) of the total energy by a straight line, and the standard deviation from it (meV/atom)."""
    total = 1e3 * (run["potential"] + run["kinetic"]) / len(run["numbers"])
    time = run["time"] * 1e-3
    slope, offset = np.polyfit(time, total, 1)
    return float(slope), float((total - slope * time - offset).std())


def _free(context: Context, result: Any, not_computed: list[str]) -> list[list[Any]]:
    """Checks on free atoms and on pairs far apart."""
    if isinstance(result, Failure):
        not_computed.append(f"free atoms: {result.reason}")
        return []
    n = len(context.elements)
    energies = dict(zip(context.elements, result["energy"][:n], strict=True))
    not_computed += [f"free atoms and pairs: {r}" for r in sorted({r for r in result["reasons"] if r})]
    rows: list[list[Any]] = []
    for z, energy in energies.items():
        if z in context.free_atoms and np.isfinite(energy):
            off = float(energy - context.free_atoms[z])
            rows.append(["free atom", chemical_symbols[z], abs(off) <= FREE_ATOM, off, "eV", ""])
    for (a, b), energy in zip(
        itertools.combinations_with_replacement(context.elements, 2), result["energy"][n:], strict=True
    ):
        off = float(energy - energies[a] - energies[b])
        if np.isfinite(off):
            name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
            rows.append(["dissociation", name, abs(off) <= 2 * ENERGY, off, "eV", ""])
    return rows
