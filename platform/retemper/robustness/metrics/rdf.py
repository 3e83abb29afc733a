"""Structure of the liquid or cluster: partial radial distributions against a reference, by earth mover's distance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.robustness.context import Context, NotApplicableError
from retemper.robustness.engine import Failure, Task
from retemper.robustness.outcome import Found, Info, not_measured
from retemper.robustness.radial import earth_movers, histograms, middles
from retemper.robustness.simulate import nvt_tasks
from retemper.robustness.stats import blocks

INFO = Info(
    title="Radial distributions: mean earth mover's distance to the reference over the pairs of elements",
    unit="Å",
    direction="lower",
    good=0.05,
    bad=0.5,
    cost="none beyond the NVT replicas of md; with an oracle its replicas once",
    reference="arXiv:2606.12704; noise floor by block bootstrap of the reference",
)
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"resamples": 50},
    "standard": {"resamples": 200},
    "thorough": {"resamples": 1000},
}
WIDTH = 0.05  # A, of a bin
REACH = 8.0  # A; less in a periodic cell with a smaller half height
EQUILIBRATION = 0.2  # share of a trajectory that is left out
FEWEST = 5  # frames on either side


def plan(context: Context) -> list[Task]:
    """NVT replicas of the model, and of the oracle where no reference frames are given."""
    tasks = nvt_tasks(context, context.subject)
    if not tasks:
        raise NotApplicableError("no starting structure with elements that the model knows: give --structures")
    if context.reference:
        return tasks
    if context.oracle is None:
        raise NotApplicableError("nothing to compare with: give --reference, a trajectory, or --oracle")
    return tasks + nvt_tasks(context, context.oracle)


def measure(context: Context, results: Sequence[Any]) -> Found:
    """Mean earth mover's distance with its block-bootstrap interval; distances and noise floors by pair."""
    n = len(nvt_tasks(context, context.subject))
    failures = [r.reason for r in results if isinstance(r, Failure)]
    own = _by_formula([_frames(r) for r in results[:n] if not isinstance(r, Failure)])
    if context.reference:
        reference = _by_formula([context.reference])
    else:
        reference = _by_formula([_frames(r) for r in results[n:] if not isinstance(r, Failure)])
    if not own:
        return not_measured(f"no replica could be computed: {failures[0]}")
    size = SIZES[context.level]["resamples"]
    rng = np.random.default_rng([context.seed, 3])
    distances: dict[str, list[float]] = {}
    floors: dict[str, list[float]] = {}
    draws: list[np.ndarray] = []
    lacking: list[str] = []
    curves: list[list[Any]] = []
    for formula, frames in own.items():
        others = reference.get(formula, [])
        if len(others) < FEWEST or len(frames) < FEWEST:
            lacking.append(f"{formula}: {len(frames)} frames of the model, {len(others)} of the reference")
            continue
        reach = min(_reach(frames), _reach(others))
        for a, b in itertools.combinations_with_replacement(sorted(set(frames[0].numbers.tolist())), 2):
            r = middles(reach, int(reach / WIDTH))
            ours, theirs = (_counts(side, a, b, reach, len(r)) / r**2 for side in (frames, others))
            if not ours.sum() or not theirs.sum():
                continue  # a single atom of an element has no pair of its own
            name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
            distances.setdefault(name, []).append(earth_movers(ours.sum(0), theirs.sum(0), r))
            drawn, floor = np.zeros(size), np.zeros(size)
            for k in range(size):
                drawn[k] = _distance(ours, theirs, r, rng)
                floor[k] = _distance(theirs, theirs, r, rng, len(ours))
            draws.append(drawn)
            floors.setdefault(name, []).append(float(floor.mean()))
            width = r[1] - r[0]
            for label, side in (("model", ours), ("reference", theirs)):
                density = side.sum(0) / (side.sum() * width)
                curves += [[f"{formula} {name} {label}", x, y] for x, y in zip(r, density, strict=True)]
    if not distances:
        return not_measured(f"the reference has too few frames of these compositions: {'; '.join(lacking)}")
    value = float(np.mean([d for pair in distances.values() for d in pair]))
    low, high = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
    floor_mean = float(np.mean([f for pair in floors.values() for f in pair]))
    pairs = {k: {"distance": float(np.mean(v)), "noise_floor": float(np.mean(floors[k]))} for k, v in distances.items()}
    details = {
        "pairs": pairs,
        "noise_floor": floor_mean,
        "above_floor": value > floor_mean,
        "lacking": lacking,
        "not_computed": failures,
    }
    return Found(
        value,
        min(value, float(low)),
        max(value, float(high)),
        sum(map(len, own.values())),
        details,
        tables={"curves": (("curve", "r", "density"), curves)},
        plots={"curves": ("r", "density", "curve", "line")},
    )


def _frames(run: dict[str, Any]) -> list[Atoms]:
    """Frames of a trajectory after equilibration, up to where it stopped."""
    n = len(run["time"]) - bool(run["stopped"])
    keep = range(int(EQUILIBRATION * n), n)
    return [Atoms(run["numbers"], run["positions"][k], cell=run["cells"][k], pbc=run["pbc"]) for k in keep]


def _by_formula(groups: Sequence[Sequence[Atoms]]) -> dict[str, list[Atoms]]:
    """Frames by composition and periodicity, atoms ordered by element."""
    found: dict[str, list[Atoms]] = {}
    for atoms in itertools.chain.from_iterable(groups):
        order = np.argsort(atoms.numbers, kind="stable")
        name = atoms.get_chemical_formula() + (" periodic" if atoms.pbc.any() else "")
        found.setdefault(name, []).append(atoms[order])
    return found


def _reach(frames: Sequence[Atoms]) -> float:
    if not frames[0].pbc.any():
        return REACH
    heights = [1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)[atoms.pbc] for atoms in frames]
    return float(min(REACH, np.min(heights) / 2))


def _counts(frames: Sequence[Atoms], a: int, b: int, reach: float, bins: int) -> np.ndarray:
    """[frames, bins] pair distances between elements `a` and `b`."""
    numbers = frames[0].numbers
    positions = np.array([atoms.positions for atoms in frames])
    cells = np.array([atoms.cell.array for atoms in frames])
    first, second = np.flatnonzero(numbers == a), np.flatnonzero(numbers == b)
    return histograms(positions, cells, frames[0].pbc, first, second, reach, bins)


def _distance(
    first: np.ndarray, second: np.ndarray, r: np.ndarray, rng: np.random.Generator, n_first: int | None = None
) -> float:
    """Earth mover's distance of block-bootstrap samples; `n_first` frames of the first (default: all of it)."""
    one = first[blocks(len(first), round(len(first) ** (1 / 3)) + 1, rng)[: n_first or len(first)]].sum(axis=0)
    two = second[blocks(len(second), round(len(second) ** (1 / 3)) + 1, rng)].sum(axis=0)
    if not one.sum() or not two.sum():
        return 0.0
    return earth_movers(one, two, r)
