"""Stability of molecular dynamics: time to the first failure at constant temperature, in a ramp, at pressure."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from retemper.data.frames import structure_hash
from retemper.evaluation.robustness.context import Computed, Context, NotApplicableError, Plan
from retemper.evaluation.robustness.ensembles import replicas, task
from retemper.evaluation.robustness.result import Info, Result, not_measured
from retemper.evaluation.robustness.statistics import survival
from retemper.evaluation.robustness.units import SHARE, Unit, share_over_groups
from retemper.simulation import dynamics
from retemper.simulation.engine import Failure
from retemper.simulation.stability import first_failure

INFO = Info(
    title="Molecular dynamics: share of replicas that reach the end",
    unit="%",
    direction="higher",
    good=100.0,
    bad=50.0,
    cost="replicas of the target system: NVT, a ramp from 50 to 800 K, NPT where there is a cell",
    reference="arXiv:2606.12704 (ice, NPT and ramp); mlipaudit (explosion, lost hydrogen)",
)
USES = ("level", "temperature", "seed")


def plan(context: Context) -> Plan:
    """A task for each replica."""
    starts = replicas(context)
    if not starts:
        raise NotApplicableError("no starting structure with elements that the model knows: give --structures")
    return {replica: task(context, context.subject, replica, start) for replica, start in starts.items()}


def measure(context: Context, results: Computed) -> Result:
    """Share of replicas that survive, over starting structures; Kaplan-Meier curve by ensemble."""
    rows: list[list[Any]] = []
    failed: list[Atoms] = []
    times: dict[str, list[float]] = {}
    failures: dict[str, list[bool]] = {}
    completed: list[float] = []
    units: list[Unit] = []
    not_computed = []
    for replica, start in replicas(context).items():
        kind, seed, result = replica.ensemble, context.seed + replica.number, results[replica]
        if isinstance(result, Failure):
            not_computed.append(result.reason)
            continue
        index, reason = first_failure(result, bonds=kind != "ramp")
        end = float(result.time[index]) if reason else float(result.planned)
        times.setdefault(kind, []).append(end)
        failures.setdefault(kind, []).append(bool(reason))
        completed.append(end / result.planned)
        group = str(start.info.get("group", structure_hash(start)))
        units.append(Unit(group, f"{kind}, seed {seed}", 0.0 if reason else SHARE))
        rows.append([kind, start.get_chemical_formula(), seed, end, result.planned, reason])
        if reason:
            for k in sorted({0, max(0, index - 1), index}):
                atoms = dynamics.frame(result, k)
                if np.isfinite(atoms.positions).all():
                    atoms.info |= {"config_type": f"md-{kind}", "failed": reason}
                    failed.append(atoms)
    if not completed:
        return not_measured(f"no replica could be computed: {not_computed[0]}")
    value, low, high, groups = share_over_groups(units)
    curve = [[kind, *row] for kind in times for row in survival(times[kind], failures[kind])]
    details = {
        "mean_completed": 100 * float(np.mean(completed)),
        "planned_fs": {kind: rows[[r[0] for r in rows].index(kind)][4] for kind in times},
        "failures": {kind: [row[5] for row in rows if row[0] == kind and row[5]] for kind in times},
        "not_computed": not_computed,
    }
    plots = {"survival": ("time_fs", "alive", "ensemble", "steps")}
    tables = {
        "replicas": (("ensemble", "formula", "seed", "time_fs", "planned_fs", "failure"), rows),
        "survival": (("ensemble", "time_fs", "alive", "low", "high"), curve),
    }
    return Result(
        value,
        low,
        high,
        len(completed),
        groups,
        "groups of starting structures",
        details,
        tables=tables,
        failed=failed,
        plots=plots,
        units=units,
    )
