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
        r = middles(reach, int(reach / WIDTH))
        pairs = {}
        for a, b in itertools.combinations_with_replacement(sorted(set(frames[0].numbers.tolist())), 2):
            ours, theirs = (_counts(side, a, b, reach, len(r)) / r**2 for side in (frames, others))
            if ours.sum() and theirs.sum():  # a single atom of an element has no pair of its own
                pairs[f"{chemical_symbols[a]}-{chemical_symbols[b]}"] = (ours, theirs)
        drawn, floor = np.zeros((size, len(pairs))), np.zeros((size, len(pairs)))
        for k in range(size):
            one, two, three = (_resampled(n, rng) for n in (len(frames), len(others), len(others)))
            for p, (ours, theirs) in enumerate(pairs.values()):
                drawn[k, p] = _distance(ours[one], theirs[two], r)
                floor[k, p] = _distance(theirs[two], theirs[three[: len(one)]], r)
        draws.append(drawn)
        for p, (name, (ours, theirs)) in enumerate(pairs.items()):
            distances.setdefault(name, []).append(_distance(ours, theirs, r))
            floors.setdefault(name, []).append(float(floor[:, p].mean()))
            width = r[1] - r[0]
            for label, side in (("model", ours), ("reference", theirs)):
                density = side.sum(0) / (side.sum() * width)
                curves += [[f"{formula} {name} {label}", x, y] for x, y in zip(r, density, strict=True)]
    if not distances:
        return not_measured(f"the reference has too few frames of these compositions: {'; '.join(lacking)}")
    value = float(np.mean([d for pair in distances.values() for d in pair]))
    low, high = interval(value, np.concatenate(draws, axis=1).mean(axis=1))
    floor_mean = float(np.mean([f for pair in floors.values() for f in pair]))
    by_pair = {
        name: {"distance": float(np.mean(found)), "noise_floor": float(np.mean(floors[name]))}
        for name, found in distances.items()
    }
    details = {
        "pairs": by_pair,
        "noise_floor": floor_mean,
        "above_floor": value > floor_mean,
        "lacking": lacking,
        "not_computed": failures,
    }
    return Found(
        value,
        low,
        high,
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


def _resampled(n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of a block-bootstrap sample of `n` frames."""
    return blocks(n, round(n ** (1 / 3)) + 1, rng)


def _distance(first: np.ndarray, second: np.ndarray, r: np.ndarray) -> float:
    """Earth mover's distance between two sets of frames [frames, bins]."""
    one, two = first.sum(axis=0), second.sum(axis=0)
    return earth_movers(one, two, r) if one.sum() and two.sum() else 0.0


def interval(value: float, drawn: np.ndarray) -> tuple[float, float]:
    """95 % interval of a distance from resamples: their spread about their own mean, laid around `value`.

    A distance is never negative, so the noise that resampling adds makes all resamples larger than the
    value; their percentiles would lie above it.
    """
    low, high = np.percentile(drawn - drawn.mean(), [2.5, 97.5])
    return max(0.0, value + float(low)), value + float(high)
