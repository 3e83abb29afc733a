"""What was forgotten: force errors on structures of the pretraining domain, as a ratio to the foundation's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from retemper.data import charge
from retemper.data.frames import FORCES
from retemper.evaluation.robustness.context import Computed, Context, NotApplicableError, Plan, group_of
from retemper.evaluation.robustness.result import Info, Result, not_measured
from retemper.evaluation.robustness.units import Unit
from retemper.evaluation.statistics import exp, group_sums, log_ratio, two_sided
from retemper.models.evaluators import Subject
from retemper.simulation.engine import Failure, Task
from retemper.simulation.points import single_points

INFO = Info(
    title="Retention: force RMSE on pretraining structures over the foundation's own",
    unit="times",
    direction="lower",
    good=1.0,
    bad=5.0,
    cost="single points on labelled structures; the foundation's once",
    reference="arXiv:2606.12704, forgetting ratio",
)
SIZES: dict[str, dict[str, int]] = {
    "quick": {"frames": 60},
    "standard": {"frames": 300},
    "thorough": {"frames": 3000},
}
CHUNK = 30  # frames a task
WORST = 5  # frames kept to look at
USES = ("level", "retention", "foundation")


def _frames(context: Context) -> list[Atoms]:
    """A fixed random subset of the labelled structures with elements that model and foundation know."""
    frames = [atoms for atoms in context.of_known_elements(context.retention) if FORCES in atoms.arrays]
    rng = np.random.default_rng(0)
    number = SIZES[context.level]["frames"]
    return [frames[i] for i in np.sort(rng.permutation(len(frames))[:number])]


def _models(context: Context) -> list[Subject]:
    assert context.foundation is not None
    return [context.subject, *context.other_heads, context.foundation]


def plan(context: Context) -> Plan:
    """Chunks of frames for the model, its other heads, and the foundation."""
    if context.foundation is None:
        raise NotApplicableError("no foundation to compare with: run inside a project, or give --foundation")
    frames = _frames(context)
    if not frames:
        raise NotApplicableError(
            "no labelled structures of the pretraining domain with known elements: name them in evaluate.retention, or "
            "give --retention"
        )
    return {
        (k, number): Task(
            single_points,
            model,
            {"frames": [_bare(a) for a in chunk]},
            f"retention, {model.head or model.name}",
            30.0 * sum(map(len, chunk)),
        )
        for k, model in enumerate(_models(context))
        for number, chunk in enumerate(_chunks(frames))
    }


def measure(context: Context, results: Computed) -> Result:
    """Ratio with its interval over groups of frames (paired); by configuration type, element and head."""
    frames = _frames(context)
    square = []
    for k in range(len(_models(context))):
        part = [results[k, number] for number in range(len(_chunks(frames)))]
        failure = next((r.reason for r in part if isinstance(r, Failure)), None)
        if failure is not None:
            return not_measured(f"forces could not be computed: {failure}")
        forces = [f for r in part for f in r.forces]
        square.append([(f - a.arrays[FORCES]) ** 2 for f, a in zip(forces, frames, strict=True)])
    computed = np.array([all(np.isfinite(model[i]).all() for model in square) for i in range(len(frames))])
    if not computed.any():
        return not_measured("no structure could be computed by model and foundation")
    sums = np.array([[s.sum() for s in model] for model in square])[:, computed]
    sizes = np.array([3 * len(atoms) for atoms in frames])[computed]
    model_sums, foundation_sums = sums[0], sums[-1]
    groups = np.array([group_of(atoms) for atoms in frames])[computed]
    places = np.flatnonzero(computed)
    units = [
        Unit(groups[i], f"frame {places[i]}", float(model_sums[i]), float(foundation_sums[i]), 0.5)
        for i in range(len(model_sums))
    ]
    value, low, high, number = _ratio(groups, model_sums, foundation_sums)
    kinds = np.array([str(atoms.info.get("config_type", "Default")) for atoms in frames])
    rows: list[list[Any]] = []
    by_element: dict[str, dict[str, float]] = {}
    heads: dict[str, dict[str, float]] = {}
    for k, model in enumerate(_models(context)[:-1]):
        name = model.head or model.name
        heads[name] = {
            "ratio": float(np.sqrt(sums[k].sum() / foundation_sums.sum())),
            "force_rmse": _rmse(sums[k], sizes),
        }
        for kind in sorted(set(kinds)):
            of_type = kinds[computed] == kind
            if of_type.any():
                model_error, foundation_error = (
                    _rmse(sums[k][of_type], sizes[of_type]),
                    _rmse(foundation_sums[of_type], sizes[of_type]),
                )
                ratio, lower, upper, of_kind = _ratio(groups[of_type], sums[k][of_type], foundation_sums[of_type])
                rows.append(
                    [kind, name, int(of_type.sum()), of_kind, model_error, foundation_error, ratio, lower, upper]
                )
    for symbol in sorted({s for atoms in frames for s in atoms.symbols}):
        pairs = [
            (square[0][i][mask].sum(), square[-1][i][mask].sum(), 3 * mask.sum())
            for i, atoms in enumerate(frames)
            if computed[i] and (mask := np.array(atoms.symbols) == symbol).any()
        ]
        if pairs:
            model_error, foundation_error, n = np.array(pairs).sum(axis=0)
            by_element[symbol] = {
                "force_rmse": 1e3 * float(np.sqrt(model_error / n)),
                "ratio": float(np.sqrt(model_error / foundation_error)),
            }
    per_frame = np.sqrt(model_sums / sizes)
    failed = []
    for i in np.argsort(-per_frame)[:WORST]:
        atoms = _bare(frames[np.flatnonzero(computed)[i]])
        atoms.info |= {"config_type": kinds[computed][i], "force_rmse_meV_A": 1e3 * float(per_frame[i])}
        failed.append(atoms)
    details = {
        "force_rmse": _rmse(model_sums, sizes),
        "foundation_force_rmse": _rmse(foundation_sums, sizes),
        "heads": heads,
        "by_config_type": {row[0]: row[6] for row in rows if row[1] == (context.subject.head or context.subject.name)},
        "by_element": by_element,
        "not_computed": int((~computed).sum()),
        "left_out": len(context.retention) - len(context.of_known_elements(context.retention)),
    }
    columns = ("config_type", "head", "frames", "groups", "force_rmse", "foundation", "ratio", "low", "high")
    return Result(
        value,
        low,
        high,
        len(model_sums),
        number,
        "groups of structures",
        details,
        tables={"types": (columns, rows)},
        failed=failed,
        plots={"types": ("config_type", "ratio", "head", "points")},
        units=units,
    )


def _ratio(groups: np.ndarray, model: np.ndarray, foundation: np.ndarray) -> tuple[float, float, float, int]:
    """RMSE over RMSE from squares by frame, its 95 % interval over groups, and their number."""
    sums = group_sums(groups.tolist(), np.stack([model, foundation], axis=1))
    interval = log_ratio(sums[:, :1], sums[:, 1:], 0.5).interval(two_sided(0.95), exp)
    return interval.value, interval.low, interval.high, interval.groups


def _chunks(frames: Sequence[Atoms]) -> list[Sequence[Atoms]]:
    return [frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK)]


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc, info=charge.info_of(atoms))


def _rmse(sums: np.ndarray, sizes: np.ndarray) -> float:
    """meV/A."""
    return 1e3 * float(np.sqrt(sums.sum() / sizes.sum()))
