"""Structure of the liquid or cluster: partial radial distributions against a reference, by earth mover's distance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.evaluation.robustness.context import Computed, Context, NotApplicableError, Plan
from retemper.evaluation.robustness.ensembles import nvt_replicas, task
from retemper.evaluation.robustness.result import Info, Result, not_measured
from retemper.evaluation.robustness.statistics import blocks
from retemper.evaluation.statistics import Estimate, jackknife, two_sided
from retemper.simulation.engine import Failure
from retemper.simulation.radial_distribution import histograms, middles, moved

INFO = Info(
    title="Radial distributions: mean earth mover's distance to the reference over the pairs of elements",
    unit="Å",
    direction="lower",
    good=0.05,
    bad=0.5,
    cost="none beyond the NVT replicas of md; with an oracle its replicas once",
    reference="arXiv:2606.12704; noise floor by block bootstrap of the reference",
)
SIZES: dict[str, dict[str, int]] = {
    "quick": {"resamples": 50},
    "standard": {"resamples": 200},
    "thorough": {"resamples": 1000},
}
WIDTH = 0.05  # A, of a bin
REACH = 8.0  # A; less in a periodic cell with a smaller half height
EQUILIBRATION = 0.2  # share of a trajectory that is left out
FEWEST = 5  # frames on either side
BLOCKS = 10  # of a series of reference frames that name no groups
REPLICA = "replica "
USES = ("level", "temperature", "seed", "reference")


def plan(context: Context) -> Plan:
    """NVT replicas of the model, and of the oracle where no reference frames are given."""
    starts = nvt_replicas(context)
    plan: Plan = {("model", k): task(context, context.subject, k, start) for k, start in starts.items()}
    if not starts:
        raise NotApplicableError("no starting structure with elements that the model knows: give --structures")
    if context.reference:
        return plan
    if context.oracle is None:
        raise NotApplicableError("nothing to compare with: give --reference, a trajectory, or --oracle")
    return plan | {("oracle", k): task(context, context.oracle, k, start) for k, start in starts.items()}


Sums = tuple[np.ndarray, int]  # [bins] numbers of distances over some frames, and how many frames


@dataclass(frozen=True)
class Pair:
    """Distances between two elements in one composition."""

    name: str
    ours: dict[str, Sums]  # by replica
    theirs: dict[str, Sums]  # by group of the reference
    r: np.ndarray  # [bins] A
    noise_floor: float  # A; between two samples of the reference


def measure(context: Context, results: Computed) -> Result:
    """Mean earth mover's distance with its interval over replicas and groups of the reference; noise floor by pair."""
    replicas = nvt_replicas(context)
    failures = [r.reason for r in results.values() if isinstance(r, Failure)]
    own = _by_formula(_frames([results["model", replica] for replica in replicas]))
    reference = _by_formula(context.reference or _frames([results["oracle", replica] for replica in replicas]))
    if not own:
        return not_measured(f"no replica could be computed: {failures[0]}")
    rng = np.random.default_rng([context.seed, 3])
    pairs: list[Pair] = []
    lacking: list[str] = []
    curves: list[list[Any]] = []
    for formula, frames in own.items():
        others = reference.get(formula, [])
        if len(others) < FEWEST or len(frames) < FEWEST:
            lacking.append(f"{formula}: {len(frames)} frames of the model, {len(others)} of the reference")
            continue
        for pair in _pairs(frames, others, SIZES[context.level]["resamples"], rng):
            pairs.append(pair)
            for label, side in (("model", pair.ours), ("reference", pair.theirs)):
                density = _mean(list(side.values())) / pair.r**2
                density = density / max(density.sum() * (pair.r[1] - pair.r[0]), np.finfo(float).tiny)
                curves += [[f"{formula} {pair.name} {label}", x, y] for x, y in zip(pair.r, density, strict=True)]
    if not pairs:
        return not_measured(f"the reference has too few frames of these compositions: {'; '.join(lacking)}")
    found = estimate(pairs)
    interval = found.interval(two_sided(0.95))
    floor = float(np.mean([pair.noise_floor for pair in pairs]))
    by_pair = {}
    for name in dict.fromkeys(pair.name for pair in pairs):
        alike = [pair for pair in pairs if pair.name == name]
        noise = float(np.mean([pair.noise_floor for pair in alike]))
        by_pair[name] = {"distance": estimate(alike).value, "noise_floor": noise}
    details = {
        "pairs": by_pair,
        "noise_floor": floor,
        "above_floor": found.value > floor,
        "lacking": lacking,
        "not_computed": failures,
    }
    return Result(
        found.value,
        max(0.0, interval.low),
        interval.high,
        sum(map(len, own.values())),
        found.groups,
        "replicas",
        details,
        tables={"curves": (("curve", "r", "density"), curves)},
        plots={"curves": ("r", "density", "curve", "line")},
    )


def estimate(pairs: Sequence[Pair]) -> Estimate:
    """Mean distance over `pairs`; the variances from leaving out replicas and groups of the reference add up.

    Degrees of freedom after F. E. Satterthwaite, Biometrics Bulletin 2, 110 (1946).
    """
    replicas = sorted({name for pair in pairs for name in pair.ours})
    groups = sorted({name for pair in pairs for name in pair.theirs})

    def of_replicas(chosen: np.ndarray) -> np.ndarray:
        return np.array([_average(pairs, [replicas[k] for k in np.flatnonzero(row)], groups) for row in chosen])

    def of_groups(chosen: np.ndarray) -> np.ndarray:
        return np.array([_average(pairs, replicas, [groups[k] for k in np.flatnonzero(row)]) for row in chosen])

    ours, theirs = jackknife(np.eye(len(replicas)), of_replicas), jackknife(np.eye(len(groups)), of_groups)
    parts = np.array([ours.error, theirs.error]) ** 2
    total = float(parts.sum())
    if not 0 < total < np.inf:
        return Estimate(ours.value, float(np.sqrt(total)), 1.0, len(replicas))
    freedom = total**2 / float((parts**2 / np.array([ours.freedom, theirs.freedom])).sum())
    return Estimate(ours.value, float(np.sqrt(total)), freedom, len(replicas))


def _average(pairs: Sequence[Pair], replicas: Sequence[str], groups: Sequence[str]) -> float:
    """Mean distance over the pairs that some of `replicas` and some of `groups` have."""
    values = []
    for pair in pairs:
        ours = [pair.ours[name] for name in replicas if name in pair.ours]
        theirs = [pair.theirs[name] for name in groups if name in pair.theirs]
        if ours and theirs:
            values.append(moved(_mean(ours), _mean(theirs), pair.r))
    return float(np.mean(values)) if values else float("nan")


def _mean(sums: Sequence[Sums]) -> np.ndarray:
    """[bins] numbers of distances a frame."""
    return np.asarray(sum(counts for counts, _ in sums) / sum(frames for _, frames in sums))


def _pairs(frames: Sequence[Atoms], others: Sequence[Atoms], size: int, rng: np.random.Generator) -> list[Pair]:
    """All pairs of elements of one composition; a single atom of an element has no pair of its own."""
    reach = min(_reach(frames), _reach(others))
    r = middles(reach, int(reach / WIDTH))
    found = []
    for a, b in itertools.combinations_with_replacement(sorted(set(frames[0].numbers.tolist())), 2):
        ours, theirs = (_counts(side, a, b, reach, len(r)) for side in (frames, others))
        if not ours.sum() and not theirs.sum():
            continue
        noise = []
        for _ in range(size):
            one, two = (theirs[_resampled(len(theirs), rng)] for _ in range(2))
            noise.append(moved(one[: len(ours)].mean(axis=0), two.mean(axis=0), r))
        name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
        found.append(Pair(name, _sums(ours, frames), _sums(theirs, others), r, float(np.mean(noise))))
    return found


def _sums(counts: np.ndarray, frames: Sequence[Atoms]) -> dict[str, Sums]:
    """Counts [frames, bins] by what is independent: replicas, groups, or else `BLOCKS` blocks of the series."""
    names = np.array([str(atoms.info.get("group", "")) for atoms in frames])
    if len(set(names)) < 2 and not names[0].startswith(REPLICA):
        names = np.array([f"block {k * BLOCKS // len(frames)}" for k in range(len(frames))])
    return {name: (counts[names == name].sum(axis=0), int((names == name).sum())) for name in dict.fromkeys(names)}


def _frames(runs: Sequence[Any]) -> list[Atoms]:
    """Frames of trajectories after equilibration, up to where they stopped; their group is the replica."""
    found = []
    for number, run in enumerate(runs):
        if isinstance(run, Failure):
            continue
        n = len(run.time) - bool(run.stopped)
        for k in range(int(EQUILIBRATION * n), n):
            atoms = Atoms(run.numbers, run.positions[k], cell=run.cells[k], pbc=run.pbc)
            atoms.info["group"] = f"{REPLICA}{number}"
            found.append(atoms)
    return found


def _by_formula(frames: Sequence[Atoms]) -> dict[str, list[Atoms]]:
    """Frames by composition and periodicity, atoms ordered by element."""
    found: dict[str, list[Atoms]] = {}
    for atoms in frames:
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
