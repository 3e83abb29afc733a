"""What the task is about: interaction and lattice energies, densities, barriers, against their references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import molecule

from retemper.data import charge
from retemper.data.frames import read_frames
from retemper.evaluation.robustness.context import Computed, Context, NotApplicableError, Plan, starts
from retemper.evaluation.robustness.result import Info, Result, not_measured
from retemper.evaluation.statistics import Estimate, effective_freedom, jackknife, two_sided
from retemper.simulation.barriers import barrier, fragments
from retemper.simulation.engine import Failure, Task
from retemper.simulation.points import single_points
from retemper.simulation.relaxation import search

INFO = Info(
    title="Observables: mean error of interaction energies, lattice energies, densities and barriers",
    unit="%",
    direction="lower",
    good=5.0,
    bad=100.0,
    cost="single points; relaxed crystals and a nudged elastic band where they apply",
    reference="S66 (CCSD(T)/CBS), DMC-ICE13 (diffusion Monte Carlo); cohesion of the target's frames and barriers "
    "against the oracle",
)
SIZES: dict[str, dict[str, int]] = {
    "quick": {"dimers": 12, "ices": 4, "relax": 0, "frames": 4, "images": 5, "steps": 40},
    "standard": {"dimers": 66, "ices": 13, "relax": 100, "frames": 10, "images": 7, "steps": 150},
    "thorough": {"dimers": 66, "ices": 13, "relax": 500, "frames": 40, "images": 11, "steps": 500},
}
USES = ("level", "seed", "oracle", "figures")
KCAL = units.kcal / units.mol  # eV
S66, ICE, PATH = "s66.extxyz", "dmc_ice13.extxyz", "path.extxyz"
REFERENCES = {
    "S66": "CCSD(T)/CBS",
    "ice": "diffusion Monte Carlo",
}  # levels, whatever that of the data; else the oracle's
CASES = {  # what each needs
    "s66": f"binding energies, {S66} in the figures' folder",
    "ice": f"lattice energies and volumes, {ICE} in the figures' folder",
    "cohesion": "frames of several molecules, an oracle",
    "barrier": f"{PATH} in the figures' folder, an oracle",
}


def _s66(context: Context) -> list[tuple[str, list[Atoms], float]]:
    """Name, [monomer, monomer, dimer] and binding energy (eV, positive) of complexes with known elements."""
    frames = _figures(context.figures, S66)
    complexes = [
        (str(frames[k + 2].info["name"]), frames[k : k + 3], float(frames[k + 2].info["ref_binding_kcal"]) * KCAL)
        for k in range(0, len(frames) - 2, 3)
        if len(context.of_known_elements(frames[k : k + 3])) == 3
    ]
    return _spread(complexes, SIZES[context.level]["dimers"])


def _ices(context: Context) -> list[tuple[str, Atoms, float]]:
    """Name, crystal and lattice energy per molecule (eV, positive)."""
    frames = context.of_known_elements(_figures(context.figures, ICE))
    crystals = [
        (str(a.info["name"]), a, float(a.info["ref_Elatt_kcal"]) * KCAL) for a in frames if "ref_Elatt_kcal" in a.info
    ]
    return _spread(crystals, SIZES[context.level]["ices"])


def _spread(cases: list[Any], number: int) -> list[Any]:
    return [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, number).astype(int))] if cases else []


def _figures(folder: Path | None, name: str) -> list[Atoms]:
    return read_frames(folder / name) if folder is not None and (folder / name).is_file() else []


def _cohesion(context: Context) -> list[list[Atoms]]:
    """Frames of several molecules or ions, each followed by its parts; neutral, non-periodic frames only.

    Of a frame with a charge or a spin nobody says which part has it.
    """
    if context.oracle is None:
        return []
    frames = [a for a in context.of_known_elements(context.frames) if not a.pbc.any() and not charge.special(a)]
    sets = [[atoms, *fragments(atoms)] for atoms in starts(frames, SIZES[context.level]["frames"], context.seed)]
    return [group for group in sets if len(group) > 2]


def plan(context: Context) -> Plan:
    """Tasks of all cases that apply."""
    size = SIZES[context.level]
    subject = context.subject
    tasks: Plan = {}
    complexes, ices, groups = _s66(context), _ices(context), _cohesion(context)
    if complexes:
        frames = [a for _, group, _ in complexes for a in group]
        tasks["S66"] = Task(single_points, subject, {"frames": frames}, "S66", 20.0 * len(frames))
    if ices:
        water = {"pressure": 0.0, "rounds": 1, "fmax": 0.01, "rattle": 0.0, "seed": 0}
        crystals = [a for _, a, _ in ices]
        arguments = {"starts": [molecule("H2O")], "steps": 200, **water}
        tasks["water"] = Task(search, subject, arguments, "water", 600.0)
        weight = 100.0 * (1 + size["relax"])
        arguments = {"starts": crystals, "steps": size["relax"], **water}
        tasks["ices"] = Task(search, subject, arguments, "ices", weight * len(crystals))
    models = {"model": subject, "oracle": context.oracle}
    for k, group in enumerate(groups):
        for side, model in models.items():
            assert model is not None
            tasks["cohesion", k, side] = Task(single_points, model, {"frames": group}, "cohesion", 50.0 * len(group[0]))
    ends = _ends(context)
    if ends:
        for side, model in models.items():
            assert model is not None
            arguments = {"ends": ends, "images": size["images"], "steps": size["steps"]}
            tasks["barrier", side] = Task(barrier, model, arguments, "barrier", 1e5)
    if not tasks:
        needs = "; ".join(f"{case}: {need}" for case, need in CASES.items())
        raise NotApplicableError(f"none of its cases has what it needs for these elements ({needs})")
    return tasks


def _ends(context: Context) -> list[Atoms]:
    """First and last frame of ``path.extxyz`` beside the figures; needs an oracle."""
    frames = _figures(context.figures, PATH) if context.oracle is not None else []
    return [frames[0], frames[-1]] if len(context.of_known_elements(frames)) == len(frames) > 1 else []


def measure(context: Context, results: Computed) -> Result:
    """Mean over the cases of the error relative to the references' mean size."""
    rows: list[list[Any]] = []
    failures = [result.reason for result in results.values() if isinstance(result, Failure)]
    computed = {key: result for key, result in results.items() if not isinstance(result, Failure)}
    complexes, ices, groups, ends = _s66(context), _ices(context), _cohesion(context), _ends(context)
    if "S66" in computed:
        energies = computed["S66"].energy.reshape(-1, 3)
        for (name, _, reference), (a, b, both) in zip(complexes, energies, strict=True):
            rows.append(["S66 binding (kcal/mol)", name, (a + b - both) / KCAL, reference / KCAL])
    if {"water", "ices"} <= computed.keys():
        water = computed["water"][0].energy
        for (name, start, reference), relaxed in zip(ices, computed["ices"], strict=True):
            n = len(start) // 3
            lattice = (water - relaxed.energy / n) / KCAL
            rows.append(["ice lattice energy (kcal/mol)", name, lattice, reference / KCAL])
            if SIZES[context.level]["relax"]:
                volume = abs(np.linalg.det(relaxed.cell)) / n
                rows.append(["ice volume (A^3 per molecule)", name, volume, start.get_volume() / n])
    for k, group in enumerate(groups):
        sides = [("cohesion", k, side) for side in ("model", "oracle")]
        if set(sides) <= computed.keys():
            energies = [computed[side].energy for side in sides]
            binding = [1e3 * (energy[1:].sum() - energy[0]) / len(group[0]) for energy in energies]
            rows.append(["cohesion (meV/atom)", group[0].get_chemical_formula(), *binding])
    if {("barrier", "model"), ("barrier", "oracle")} <= computed.keys():
        heights = [computed["barrier", side].barrier for side in ("model", "oracle")]
        rows.append(["barrier (eV)", str(ends[0].symbols), *heights])
    rows = [row for row in rows if np.isfinite(row[2:]).all()]
    if not rows:
        return not_measured(f"nothing could be computed: {'; '.join(failures) or 'no finite energy'}")
    kinds: dict[str, np.ndarray] = {}
    for kind in dict.fromkeys(row[0] for row in rows):
        kinds[kind] = np.array([row[2:] for row in rows if row[0] == kind], dtype=float)
    mean = mean_of([_relative(pairs) for pairs in kinds.values()])
    interval = mean.interval(two_sided(0.95))
    cases = {
        kind: {
            "reference": REFERENCES.get(kind.split()[0], context.oracle_level or "the oracle"),
            "n": len(pairs),
            "mae": float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()),
            "mean_reference": float(pairs[:, 1].mean()),
            "relative_error": _relative(pairs).value,
        }
        for kind, pairs in kinds.items()
    }
    details = {"cases": cases, "not_computed": failures}
    tables = {"values": (("case", "name", "model", "reference"), rows)}
    plots = {"values": ("reference", "model", "case", "points")}
    return Result(
        mean.value,
        max(0.0, interval.low),
        interval.high,
        len(rows),
        mean.groups,
        "structures",
        details,
        tables=tables,
        plots=plots,
    )


def mean_of(cases: Sequence[Estimate]) -> Estimate:
    """Mean over the cases; a case of one structure has no error of its own and takes part without one."""
    value = float(np.mean([case.value for case in cases]))
    with_error = [case for case in cases if np.isfinite(case.error)]
    parts = [(case.error / len(cases)) ** 2 for case in with_error]
    groups = sum(case.groups for case in with_error)
    if not sum(parts):
        return Estimate(value, 0.0 if groups else np.inf, 1.0, groups)
    freedom = effective_freedom(parts, [case.freedom for case in with_error])
    return Estimate(value, float(np.sqrt(sum(parts))), freedom, groups)


def _relative(pairs: np.ndarray) -> Estimate:
    """Mean absolute error over the mean size of the references, %; over structures."""
    table = np.stack([np.abs(pairs[:, 0] - pairs[:, 1]), np.abs(pairs[:, 1])], axis=1)
    return jackknife(table, lambda sums: np.asarray(100 * sums[:, 0] / sums[:, 1]))
