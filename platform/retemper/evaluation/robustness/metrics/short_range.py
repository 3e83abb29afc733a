"""Repulsive walls: dimers of every pair of elements, and compression of many atoms at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from pydantic import JsonValue

from retemper.data import charge
from retemper.evaluation.robustness.context import Computed, Context, Plan, starts
from retemper.evaluation.robustness.result import Info, Result, not_measured
from retemper.evaluation.robustness.units import SHARE, Unit, share_over_groups
from retemper.models.evaluators import Evaluated, Subject
from retemper.records.robustness import Details
from retemper.simulation.engine import Failure, Task
from retemper.simulation.points import single_points
from retemper.simulation.random_structures import compositions, nearest_ratio, packing

INFO = Info(
    title="Short range: share of dimer and compression curves with a repulsive wall",
    unit="%",
    direction="higher",
    good=100.0,
    bad=50.0,
    cost="single points: 60 for each pair of elements, 25 for each compressed structure",
    reference="arXiv:2606.12704 (many-body holes); ml-peg and mlip-arena (dimers)",
)
SIZES: dict[str, dict[str, int]] = {
    "quick": {"clusters": 8, "frames": 3},
    "standard": {"clusters": 30, "frames": 8},
    "thorough": {"clusters": 150, "frames": 20},
}
INNER, WALL, OUTER = 0.4, 0.5, 6.0  # dimers from INNER times the sum of covalent radii to OUTER A; judged from WALL on
NEEDED = 2.0  # times the sum of covalent radii: a dimer is judged when it could be computed from WALL to here
POINTS = 60
USES = ("level", "elements", "seed")
SCALES = np.linspace(1.0, 0.52, 25)  # of all distances, in a compression
DIP = 0.02  # eV (dimers) and eV/atom (compression): a smaller fall towards the inside does not count
RISE = 1.0  # eV (dimers), eV/atom / 4 (compression) that the wall must reach above the minimum
FLIP = 0.02  # eV/A; smaller forces have no sign


@dataclass(frozen=True)
class Curve:
    """Verdict on an energy curve from the inside to the outside."""

    sound: bool
    flips: int  # changes of the force's sign
    minima: int  # local minima of the energy
    deepest: int  # index of the worst point of a hole; -1 without one
    conservation: float  # eV/A; largest |F + dE/dr| away from the ends


def distances(a: int, b: int) -> np.ndarray:
    """[POINTS] A, from the inside."""
    return np.geomspace(INNER * (covalent_radii[a] + covalent_radii[b]), OUTER, POINTS)


def dimers(a: int, b: int) -> list[Atoms]:
    """Two atoms at each of `distances`."""
    return [Atoms([a, b], [[0.0, 0.0, 0.0], [r, 0.0, 0.0]]) for r in distances(a, b)]


def compress(atoms: Atoms) -> list[Atoms]:
    """Copies with all distances times `SCALES`."""
    copies = []
    for scale in SCALES:
        cell, state = atoms.cell.array * scale, charge.info_of(atoms)
        copies.append(Atoms(atoms.numbers, atoms.positions * scale, cell=cell, pbc=atoms.pbc, info=state))
    return copies


def _bodies(context: Context) -> list[Atoms]:
    """Structures to compress: random clusters of the elements, and frames of the target system."""
    size = SIZES[context.level]
    rng = np.random.default_rng([context.seed, 7])
    clusters = []
    for composition in compositions(context.elements, size["clusters"], context.seed + 1, max_atoms=8):
        cluster = packing(composition, rng)
        cluster.pbc = False
        cluster.cell[:] = 0.0
        clusters.append(cluster)
    return clusters + starts(context.of_known_elements(context.frames), size["frames"], context.seed)


def plan(context: Context) -> Plan:
    """Dimers of all pairs, then the compressions; with an oracle its dimers as well."""
    tasks: Plan = {("dimer", *pair): _task(context.subject, dimers(*pair)) for pair in _element_pairs(context)}
    tasks |= {("body", k): _task(context.subject, compress(atoms)) for k, atoms in enumerate(_bodies(context))}
    if context.oracle is not None:
        for a, b in _element_pairs(context):
            frames = dimers(a, b)
            label = f"oracle, {frames[0].get_chemical_formula()}"
            tasks["oracle", a, b] = Task(single_points, context.oracle, {"frames": frames}, label, 100.0)
    return tasks


def _element_pairs(context: Context) -> list[tuple[int, int]]:
    return list(itertools.combinations_with_replacement(context.elements, 2))


def _task(subject: Subject, frames: list[Atoms]) -> Task:
    label = f"short range, {frames[0].get_chemical_formula()}"
    return Task(single_points, subject, {"frames": frames}, label, sum(map(len, frames)))


def measure(context: Context, results: Computed) -> Result:
    """Share of curves with a sound wall; flips, extra minima and the oracle's differences in the details."""
    rows: list[list[Any]] = []
    points: list[list[Any]] = []
    failed: list[Atoms] = []
    units: list[Unit] = []
    pairs: Details = {}
    flips = minima = 0
    not_computed: list[JsonValue] = []
    for a, b in _element_pairs(context):
        name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
        result = results["dimer", a, b]
        radii = covalent_radii[a] + covalent_radii[b]
        r = distances(a, b)
        computed = np.zeros(len(r), dtype=bool) if isinstance(result, Failure) else np.isfinite(result.energy)
        if not computed[(r >= WALL * radii) & (r <= NEEDED * radii)].all():
            not_computed.append(f"{name}: {_reason(result)}")
            continue
        energy = result.energy
        force = np.array([f[1, 0] for f in result.forces])  # positive: pushes apart
        curve = judge(r[computed], energy[computed], force[computed], WALL * radii, RISE, DIP)
        units.append(Unit(_chemistry(dimers(a, b)[0]), f"dimer {name}", SHARE * curve.sound))
        entry: Details = {
            "sound": curve.sound,
            "force_flips": curve.flips,
            "extra_minima": max(0, curve.minima - 1),
            "conservation": curve.conservation,
        }
        if context.oracle is not None:
            entry |= _against(results["oracle", a, b], force)
        pairs[name] = entry
        flips, minima = flips + curve.flips, minima + max(0, curve.minima - 1)
        rows.append([name, "dimer", curve.sound, curve.flips, max(0, curve.minima - 1), curve.conservation])
        points += [[name, x, e, f] for x, e, f in zip(r[computed], energy[computed], force[computed], strict=True)]
        if not curve.sound:
            place = np.flatnonzero(computed)[max(0, curve.deepest)]
            failed.append(_mark(dimers(a, b)[place], f"dimer {name}"))
    n_pairs, good_pairs = len(units), sum(unit.value > 0 for unit in units)
    for k, atoms in enumerate(_bodies(context)):
        result = results["body", k]
        name = f"{atoms.get_chemical_formula()} #{k}"
        if isinstance(result, Failure) or not _up_to_failure(result):
            not_computed.append(f"{name}: {_reason(result)}")
            continue
        n = _up_to_failure(result)
        per_atom = result.energy[:n] / len(atoms)
        ratio = nearest_ratio(atoms)
        inside = WALL / ratio if np.isfinite(ratio) else WALL
        scale = SCALES[:n][::-1]
        force = -np.gradient(per_atom[::-1], scale)
        curve = judge(scale, per_atom[::-1], force, inside, RISE / 4, DIP)
        units.append(Unit(_chemistry(atoms), f"compression {name}", SHARE * curve.sound))
        rows.append([name, "compression", curve.sound, "", max(0, curve.minima - 1), ""])
        points += [[name, s, e, ""] for s, e in zip(SCALES[:n], per_atom, strict=True)]
        if not curve.sound:
            failed.append(_mark(compress(atoms)[n - 1 - max(0, curve.deepest)], f"compression {name}"))
    if not units:
        first = not_computed[0] if not_computed else "no elements"
        return not_measured(f"no curve could be computed: {first}", pairs=pairs, not_computed=not_computed)
    value, low, high, groups = share_over_groups(units)
    good = sum(unit.value > 0 for unit in units)
    details: Details = {
        "pairs": pairs,
        "not_computed": not_computed,
        "dimers_sound": f"{good_pairs} of {n_pairs}",
        "compressions_sound": f"{good - good_pairs} of {len(units) - n_pairs}",
        "force_flips": flips,
        "extra_minima": minima,
    }
    plots = {"points": ("r_or_scale", "energy", "curve", "symlog")}
    tables = {
        "curves": (("curve", "kind", "sound", "force_flips", "extra_minima", "conservation"), rows),
        "points": (("curve", "r_or_scale", "energy", "force"), points),
    }
    return Result(
        value,
        low,
        high,
        len(units),
        groups,
        "sets of elements",
        details,
        tables=tables,
        failed=failed,
        plots=plots,
        units=units,
    )


def _chemistry(atoms: Atoms) -> str:
    """The elements of a structure: curves of the same elements show the same wall."""
    return "-".join(sorted(set(atoms.symbols)))


def judge(x: np.ndarray, energy: np.ndarray, force: np.ndarray, inside: float, rise: float, dip: float) -> Curve:
    """Verdict on a curve.

    Parameters
    ----------
    x
        [n] distance or scale, rising.
    energy, force
        [n]; force is -dE/dx.
    inside
        Nothing is judged below this x.
    rise
        What the energy must gain from its minimum to the innermost judged point; less where the minimum is itself
        that close.
    dip
        Fall of the energy towards the inside that counts as a hole.
    """
    indices = np.flatnonzero(x >= inside - 1e-9)
    e, f, place = energy[indices], force[indices], x[indices]
    half = max(2, int(np.searchsorted(place, inside * 1.4)))  # a sound minimum is outside of this
    bottom = half + int(np.argmin(e[half:])) if half < len(e) else len(e) - 1
    inner = e[: bottom + 1][::-1]  # from the minimum inwards
    fall = np.maximum.accumulate(inner) - inner
    hole = bool((fall > dip).any())
    deepest = int(indices[bottom - int(np.argmax(fall))]) if hole else -1
    climbs = bool(inner.max() - inner[0] >= rise)
    if not climbs and not hole:
        deepest = int(indices[0])
    signs = np.sign(f[np.abs(f) > FLIP])
    flips = int((np.diff(signs) != 0).sum()) if len(signs) else 0
    prominent = np.diff(np.sign(np.diff(e))) > 0
    minima = int(prominent.sum())
    slope = np.gradient(energy, x)
    smooth = slice(2, -2)
    curvature = np.abs(np.gradient(slope, x)) * np.gradient(x)  # the difference quotient's own error
    conservation = np.abs(force + slope)[smooth] - curvature[smooth]
    return Curve(climbs and not hole, flips, minima, deepest, float(max(0.0, conservation.max(initial=0.0))))


def _against(result: Evaluated | Failure, force: np.ndarray) -> Details:
    """Force error against the oracle where its forces are below 50 eV/A."""
    if isinstance(result, Failure):
        return {"oracle": result.reason}
    oracle_force = np.array([f[1, 0] for f in result.forces])
    use = np.isfinite(oracle_force) & np.isfinite(force) & (np.abs(oracle_force) < 50.0)
    if not use.any():
        return {"oracle": "not computed"}
    return {
        "oracle_force_rmse": float(1e3 * np.sqrt(((force - oracle_force)[use] ** 2).mean())),
        "oracle_points": int(use.sum()),
    }


def _up_to_failure(result: Evaluated) -> int:
    """Points from the outside that were computed before the first failure; 0 for fewer than five."""
    n = next((k for k, reason in enumerate(result.reasons) if reason), len(result.reasons))
    return n if n >= 5 else 0


def _reason(result: Evaluated | Failure) -> str:
    if isinstance(result, Failure):
        return result.reason
    return str(next(reason for reason in result.reasons if reason))


def _mark(atoms: Atoms, curve: str) -> Atoms:
    atoms.info["config_type"] = "short-range"
    atoms.info["failed"] = curve
    return atoms
