"""Holes found by random structure search: relax, rattle, relax again, at low and high pressure.

What `rss` counts (the paper's four criteria) and what `rss_strict` counts are the same relaxations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from ase import Atoms

from retemper.evaluation.robustness.context import Computed, Context, Plan
from retemper.evaluation.robustness.result import Result, not_measured
from retemper.evaluation.robustness.units import SHARE, Unit, share_over_groups
from retemper.simulation.engine import Failure, Task
from retemper.simulation.random_structures import compositions, nearest_ratio, random_structures
from retemper.simulation.relaxation import Minimum, search


class Size(TypedDict):
    """What is searched at a level."""

    compositions: int
    each: int  # structures of a composition
    rounds: int
    steps: int  # of a relaxation
    fmax: float  # eV/A


SIZES: dict[str, Size] = {
    "quick": {"compositions": 6, "each": 4, "rounds": 2, "steps": 60, "fmax": 0.1},
    "standard": {"compositions": 10, "each": 12, "rounds": 2, "steps": 200, "fmax": 0.05},
    "thorough": {"compositions": 10, "each": 50, "rounds": 3, "steps": 500, "fmax": 0.05},
}
PRESSURES = (0.1, 50.0)  # GPa
RATTLE = 0.1  # A
CLOSE = 0.5  # smallest d / (r_cov,i + r_cov,j)
RATIO = 0.6  # the same, stricter and no criterion of the paper: see benchmarks/rss_referee.py
VOLUME = 0.30  # of the composition's median volume per atom
DENSE = 0.50  # of the same, with an energy below the median
MADS, FLOOR = 10.0, 5.0  # median absolute deviations; at least eV/atom
PAPER = ("close", "volume", "energy", "dense", "collapsed")  # criteria of arXiv:2606.12704
STRICT = (*PAPER, "ratio")
COLLAPSED = ("cell collapsed", "energy, forces or stress are not finite", "positions or cell")


def plan(context: Context) -> Plan:
    """A task for each composition and pressure."""
    size = SIZES[context.level]
    relaxed = {"rounds": size["rounds"], "steps": size["steps"], "fmax": size["fmax"]}
    protocol = {**relaxed, "rattle": RATTLE, "seed": context.seed}
    tasks: Plan = {}
    for number, composition in enumerate(compositions(context.elements, size["compositions"], context.seed)):
        structures = random_structures(composition, size["each"], context.seed)
        weight = 300.0 * size["rounds"] * sum(map(len, structures))
        for pressure in PRESSURES:
            label = f"structure search, {structures[0].get_chemical_formula()}, {pressure:g} GPa"
            arguments = {"starts": structures, "pressure": pressure, **protocol}
            tasks[number, pressure] = Task(search, context.subject, arguments, label, weight)
    return tasks


def measure(context: Context, results: Computed, criteria: Sequence[str]) -> Result:
    """Share of structures that meet one of `criteria`; the interval is over compositions.

    Relaxations of one composition are alike (standard error 1.3 to 1.9 times that of independent ones), the two
    pressures of one start are not beyond that (1.0 times).
    """
    rows: list[list[Any]] = []
    failed: list[Atoms] = []
    reasons: Counter[str] = Counter()
    places: list[float] = []
    units: list[Unit] = []
    uncounted: dict[float, Counter[str]] = {pressure: Counter() for pressure in PRESSURES}
    criteria_met: Counter[str] = Counter()
    for (_, pressure), result in results.items():
        if isinstance(result, Failure):
            uncounted[pressure]["not_computed"] += SIZES[context.level]["each"]
            reasons[result.reason] += SIZES[context.level]["each"]
            continue
        for start, (minimum, flags) in enumerate(zip(result, judge(result), strict=True)):
            atoms = minimum.atoms()
            name = atoms.get_chemical_formula()
            if minimum.reason and not minimum.reason.startswith(COLLAPSED):
                uncounted[pressure]["not_computed"] += 1
                reasons[minimum.reason] += 1
                continue
            hole = bool(set(flags) & set(criteria))
            uncounted[pressure]["not_converged"] += not minimum.converged and not hole
            criteria_met.update(flag for flag in flags if flag in criteria)
            places.append(pressure)
            units.append(Unit(name, f"{pressure:g} GPa, start {start}", SHARE * hole))
            volume = atoms.get_volume() / len(atoms)
            energy = minimum.energy / len(atoms)
            ratio = nearest_ratio(atoms) if not minimum.reason else float("nan")
            rows.append([name, pressure, energy, volume, ratio, minimum.steps, minimum.converged, " ".join(flags)])
            if hole:
                atoms.info |= {"config_type": f"rss-{pressure:g}GPa", "criteria": " ".join(flags), "ratio": ratio}
                failed.append(atoms)
    if not units:
        return not_measured(f"no structure could be computed: {reasons.most_common(1)[0][0]}", reasons=dict(reasons))
    value, low, high, groups = share_over_groups(units)
    details: dict[str, object] = {"criteria": dict(criteria_met), "reasons": dict(reasons)}
    for pressure in PRESSURES:
        at_pressure = [unit for unit, place in zip(units, places, strict=True) if place == pressure]
        share, lower, upper, _ = share_over_groups(at_pressure)
        count = {key: uncounted[pressure][key] for key in ("not_converged", "not_computed")}
        holes = sum(unit.value > 0 for unit in at_pressure)
        details[f"{pressure:g} GPa"] = {
            "n": len(at_pressure),
            "holes": holes,
            **count,
            "share": share,
            "low": lower,
            "high": upper,
        }
    columns = ("formula", "pressure", "energy_per_atom", "volume_per_atom", "ratio", "steps", "converged", "criteria")
    return Result(
        value,
        low,
        high,
        len(units),
        groups,
        "compositions",
        details,
        tables={"structures": (columns, rows)},
        failed=failed,
        plots={"structures": ("volume_per_atom", "energy_per_atom", "formula", "points")},
        units=units,
    )


def judge(minima: Sequence[Minimum]) -> list[list[str]]:
    """Criteria that each relaxed structure of one composition and pressure meets; none is sound."""
    energy = np.array([f.energy / len(f.numbers) for f in minima])
    volume = np.array([abs(np.linalg.det(f.cell)) / len(f.numbers) for f in minima])
    sound = np.array([not f.reason for f in minima])
    median_energy = float(np.median(energy[sound])) if sound.any() else np.nan
    median_volume = float(np.median(volume[sound])) if sound.any() else np.nan
    deviation = float(np.median(np.abs(energy[sound] - median_energy))) if sound.any() else np.nan
    flags = []
    for k, f in enumerate(minima):
        if f.reason:
            flags.append(["collapsed"] if f.reason.startswith(COLLAPSED) else [])
            continue
        nearest = nearest_ratio(f.atoms())
        tests = {
            "close": nearest < CLOSE,
            "ratio": nearest < RATIO,
            "volume": volume[k] < VOLUME * median_volume,
            "energy": energy[k] < median_energy - max(MADS * deviation, FLOOR),
            "dense": volume[k] < DENSE * median_volume and energy[k] < median_energy,
        }
        flags.append([name for name, met in tests.items() if met])
    return flags
