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
from retemper.evaluation.statistics import Estimate, effective_freedom, jackknife, two_sided
from retemper.simulation.engine import Failure
from retemper.simulation.radial_distribution import histogram_distance, histograms, middles

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
    model: dict[str, Sums]  # by replica
    reference: dict[str, Sums]  # by group of the reference
    r: np.ndarray  # [bins] A
    noise_floor: float  # A; between two samples of the reference


def measure(context: Context, results: Computed) -> Result:
    """Mean earth mover's distance with its interval over replicas and groups of the reference; noise floor by pair."""
    replicas = nvt_replicas(context)
    failures = [r.reason for r in results.values() if isinstance(r, Failure)]
    model_frames = _by_formula(_frames([results["model", replica] for replica in replicas]))
    reference = _by_formula(context.reference or _frames([results["oracle", replica] for replica in replicas]))
    if not model_frames:
        return not_measured(f"no replica could be computed: {failures[0]}")
    rng = np.random.default_rng([context.seed, 3])
    pairs: list[Pair] = []
    missing: list[str] = []
    curves: list[list[Any]] = []
    for formula, frames in model_frames.items():
        reference_frames = reference.get(formula, [])
        if len(reference_frames) < FEWEST or len(frames) < FEWEST:
            missing.append(f"{formula}: {len(frames)} frames of the model, {len(reference_frames)} of the reference")
            continue
        for pair in _pairs(frames, reference_frames, SIZES[context.level]["resamples"], rng):
            pairs.append(pair)
            for label, side in (("model", pair.model), ("reference", pair.reference)):
                density = _mean(list(side.values())) / pair.r**2
                density = density / max(density.sum() * (pair.r[1] - pair.r[0]), np.finfo(float).tiny)
                curves += [[f"{formula} {pair.name} {label}", x, y] for x, y in zip(pair.r, density, strict=True)]
    if not pairs:
        return not_measured(f"the reference has too few frames of these compositions: {'; '.join(missing)}")
    mean = estimate(pairs)
    interval = mean.interval(two_sided(0.95))
    floor = float(np.mean([pair.noise_floor for pair in pairs]))
    by_pair = {}
    for name in dict.fromkeys(pair.name for pair in pairs):
        of_name = [pair for pair in pairs if pair.name == name]
        noise = float(np.mean([pair.noise_floor for pair in of_name]))
        by_pair[name] = {"distance": estimate(of_name).value, "noise_floor": noise}
    details = {
        "pairs": by_pair,
        "noise_floor": floor,
        "above_floor": mean.value > floor,
        "lacking": missing,
        "not_computed": failures,
    }
    return Result(
        mean.value,
        max(0.0, interval.low),
        interval.high,
        sum(map(len, model_frames.values())),
        mean.groups,
        "replicas",
        details,
        tables={"curves": (("curve", "r", "density"), curves)},
        plots={"curves": ("r", "density", "curve", "line")},
    )


def estimate(pairs: Sequence[Pair]) -> Estimate:
    """Mean distance over `pairs`; the variances from leaving out replicas and groups of the reference add up."""
    replicas = sorted({name for pair in pairs for name in pair.model})
    groups = sorted({name for pair in pairs for name in pair.reference})

    def of_replicas(masks: np.ndarray) -> np.ndarray:
        return np.array([_average(pairs, [replicas[k] for k in np.flatnonzero(row)], groups) for row in masks])

    def of_groups(masks: np.ndarray) -> np.ndarray:
        return np.array([_average(pairs, replicas, [groups[k] for k in np.flatnonzero(row)]) for row in masks])

    over_replicas, over_groups = (
        jackknife(np.eye(len(replicas)), of_replicas),
        jackknife(np.eye(len(groups)), of_groups),
    )
    parts = [over_replicas.error**2, over_groups.error**2]
    total = sum(parts)
    if not 0 < total < np.inf:
        return Estimate(over_replicas.value, float(np.sqrt(total)), 1.0, len(replicas))
    freedom = effective_freedom(parts, [over_replicas.freedom, over_groups.freedom])
    return Estimate(over_replicas.value, float(np.sqrt(total)), freedom, len(replicas))


def _average(pairs: Sequence[Pair], replicas: Sequence[str], groups: Sequence[str]) -> float:
    """Mean distance over the pairs that some of `replicas` and some of `groups` have."""
    values = []
    for pair in pairs:
        model_sums = [pair.model[name] for name in replicas if name in pair.model]
        reference_sums = [pair.reference[name] for name in groups if name in pair.reference]
        if model_sums and reference_sums:
            values.append(histogram_distance(_mean(model_sums), _mean(reference_sums), pair.r))
    return float(np.mean(values)) if values else float("nan")


def _mean(sums: Sequence[Sums]) -> np.ndarray:
    """[bins] numbers of distances a frame."""
    return np.asarray(sum(counts for counts, _ in sums) / sum(frames for _, frames in sums))


def _pairs(frames: Sequence[Atoms], reference: Sequence[Atoms], size: int, rng: np.random.Generator) -> list[Pair]:
    """All pairs of elements of one composition; a single atom of an element has no pair of its own."""
    reach = min(_reach(frames), _reach(reference))
    r = middles(reach, int(reach / WIDTH))
    pairs = []
    for a, b in itertools.combinations_with_replacement(sorted(set(frames[0].numbers.tolist())), 2):
        model_counts, reference_counts = (_counts(side, a, b, reach, len(r)) for side in (frames, reference))
        if not model_counts.sum() and not reference_counts.sum():
            continue
        noise = []
        for _ in range(size):
            first, second = (reference_counts[_resample(len(reference_counts), rng)] for _ in range(2))
            noise.append(histogram_distance(first[: len(model_counts)].mean(axis=0), second.mean(axis=0), r))
        name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
        pairs.append(
            Pair(name, _sums(model_counts, frames), _sums(reference_counts, reference), r, float(np.mean(noise)))
        )
    return pairs


def _sums(counts: np.ndarray, frames: Sequence[Atoms]) -> dict[str, Sums]:
    """Counts [frames, bins] by what is independent: replicas, groups, or else `BLOCKS` blocks of the series."""
    names = np.array([str(atoms.info.get("group", "")) for atoms in frames])
    if len(set(names)) < 2 and not names[0].startswith(REPLICA):
        names = np.array([f"block {k * BLOCKS // len(frames)}" for k in range(len(frames))])
    return {name: (counts[names == name].sum(axis=0), int((names == name).sum())) for name in dict.fromkeys(names)}


def _frames(runs: Sequence[Any]) -> list[Atoms]:
    """Frames of trajectories after equilibration, up to where they stopped; their group is the replica."""
    frames = []
    for number, run in enumerate(runs):
        if isinstance(run, Failure):
            continue
        n = len(run.time) - bool(run.stopped)
        for k in range(int(EQUILIBRATION * n), n):
            atoms = Atoms(run.numbers, run.positions[k], cell=run.cells[k], pbc=run.pbc)
            atoms.info["group"] = f"{REPLICA}{number}"
            frames.append(atoms)
    return frames


def _by_formula(frames: Sequence[Atoms]) -> dict[str, list[Atoms]]:
    """Frames by composition and periodicity, atoms ordered by element."""
    by_formula: dict[str, list[Atoms]] = {}
    for atoms in frames:
        order = np.argsort(atoms.numbers, kind="stable")
        name = atoms.get_chemical_formula() + (" periodic" if atoms.pbc.any() else "")
        by_formula.setdefault(name, []).append(atoms[order])
    return by_formula


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


def _resample(n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of a block-bootstrap sample of `n` frames."""
    return blocks(n, round(n ** (1 / 3)) + 1, rng)
