"""Synthetic results tables of studies: errors with planted effects, from a random generator."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

STRATEGIES = ("scratch", "naive", "freeze-5", "freeze-6", "lora", "replay", "pseudolabel-replay", "replay-lora")
SYSTEMS = ("nacl", "ice", "sn2", "spice", "lpsc")
OWN = {"scratch": 1e-2, "lora": 1e-2, "replay-lora": 1e-3, "replay": 1e-4, "pseudolabel-replay": 1e-4}
ERRORS = ("target_force_rmse", "target_energy_rmse", "retention_force_rmse", "replay_head_force_rmse", "e0_error")
GROUPS = 6  # of test structures of a system
CURVES = 40  # behind each share of curves with a wall


def levels(**axes: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations, with usual levels of axes that are not given."""
    usual = {"system": SYSTEMS, "foundation": ("mini",), "e0s": ("reestimate",), "strategy": STRATEGIES}
    usual |= {"size": (20, 80), "seed": (1, 2, 3)}
    every = {**usual, **axes}
    return [dict(zip(every, point, strict=True)) for point in itertools.product(*every.values())]


def table(
    points: Sequence[Mapping[str, Any]],
    rng: np.random.Generator,
    effects: Mapping[str, Mapping[tuple[str, Any], float]] | None = None,
    *,
    between: float = 0.0,
    noise: float = 0.05,
    walls: Mapping[str, float] | None = None,
    structures: float | None = None,
) -> pd.DataFrame:
    """A table of finished runs.

    Parameters
    ----------
    effects
        By column of `ERRORS` and (axis, level): what is added to the logarithm of the error.
    between
        Standard deviation over systems of every effect of a strategy and E0 method: systems differ.
    noise
        Standard deviation over seeds, of logarithms.
    walls
        Expected share, %, of curves with a wall by strategy; 60 for every other.
    structures
        Standard deviation over `GROUPS` groups of test structures, of logarithms, of what each strategy makes of them:
        the same for all its seeds. The table then has errors by group.
    """
    rows = []
    of_groups: dict[tuple[str, str, str], Any] = {}
    differ: dict[tuple[str, str, Any], float] = {}
    for number, point in enumerate(points):
        strategy = point["strategy"]
        row: dict[str, Any] = {"run": f"{number:016x}", **point, "designs": "all", "state": "finished", "reason": ""}
        for axis in [name for name in point if "." in name]:
            own = OWN.get(strategy, 1e-3) if axis == "training.lr" else {"lora.rank": 4}.get(axis)
            row[f"value of {axis}"] = own if point[axis] == "own" else point[axis]
        for column in ERRORS:
            log = np.log(100.0) + 0.3 * (hash_of(point["system"]) - 0.5) - 0.25 * np.log(point["size"] / 20)
            for axis, level in point.items():
                log += (effects or {}).get(column, {}).get((axis, level), 0.0)
                if between and axis in ("strategy", "e0s"):
                    key = (column, point["system"], level)
                    log += differ.setdefault(key, between * rng.normal())
            row[column] = float(np.exp(log + noise * rng.normal()))
            if structures is not None and column != "e0_error":
                own = of_groups.setdefault((column, point["system"], strategy), structures * rng.normal(size=GROUPS))
                each = row[column] * np.exp(own)
                row[column] = float(np.sqrt((each**2).mean()))
                row[f"{column}_groups"] = " ".join(f"90:{one:.8g}" for one in each)
        if "replay" not in strategy:
            row["replay_head_force_rmse"] = float("nan")
        row["foundation_retention_force_rmse"] = 100.0
        if structures is not None:
            row["foundation_retention_force_rmse_groups"] = " ".join(["90:100"] * GROUPS)
        row["forgetting_ratio"] = row["retention_force_rmse"] / 100.0
        share = (walls or {}).get(strategy, 60.0)
        row["short_range"] = 100.0 * rng.binomial(CURVES, share / 100) / CURVES
        row |= {"short_range_n": CURVES, "foundation_short_range": 60.0, "cpu_seconds": 10.0}
        rows.append(row)
    return pd.DataFrame(rows)


def hash_of(name: str) -> float:
    """A number from 0 to 1 that belongs to a name."""
    return (sum(map(ord, name)) % 97) / 97
