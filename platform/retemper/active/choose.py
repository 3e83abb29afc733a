"""From what exploration finds to the structures that are worth a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from retemper.active import estimate, plugins
from retemper.active.calibrate import Scale
from retemper.active.estimate import Estimator
from retemper.active.explored import Context, Explored
from retemper.active.pool import Pool
from retemper.active.source import Source
from retemper.config.project import Project
from retemper.config.settings import Acquire, Settings
from retemper.core.errors import unknown
from retemper.data import rounds
from retemper.data.duplicates import near_pairs
from retemper.data.frames import is_isolated_atom, read_frames
from retemper.models import evaluators
from retemper.models.descriptors import mean_descriptors
from retemper.records.round import Calibration
from retemper.simulation import engine

REFEREES = 4  # structures on which the fast back end must agree with MACE itself
REPEATED = 1_000_000  # between the seeds of explorers of one name: farther than those of a campaign's rounds


def explore(here: Source, options: Acquire, seed: int, cache: Path) -> Explored:
    """What all explorers find with the leading model, each its share of ``acquire.candidates``.

    One that is listed again explores with other random numbers, and its paths have other names.
    """
    starts = [*here.train, *here.valid]
    subject, how = evaluators.fastest(_subject(here), starts[:REFEREES], here.elements, cache)
    print(f"exploring with {here.strategy} through {how}", flush=True)

    def run(tasks: Sequence[engine.Task]) -> list[Any]:
        return engine.run(tasks, workers=options.workers, cache=cache, ray=options.ray)

    share = -(-options.candidates // len(options.explorers))
    found, times = Explored(), Counter[str]()
    for plugin in options.explorers:
        module, own = plugins.load("explore", plugin)
        before = times[plugin.name]
        part = module.explore(Context(subject, starts, here.elements, share, seed + REPEATED * before, run), own)
        if before:
            for atoms in [*part.frames, *part.unphysical]:
                atoms.info["path"] = f"{before + 1}:{atoms.info['path']}"
        times[plugin.name] += 1
        found.merge(part)
    return found


def admissible(
    explored: Explored,
    estimate: Estimator,
    calibration: Calibration,
    here: Source,
    settings: Settings,
    known: Sequence[Atoms],
) -> tuple[list[Atoms], dict[str, int]]:
    """Candidates within the limits that none of `known` resembles; and why others are not.

    Paths are left first: the frame that ends one may be turned away itself.
    """
    options = settings.acquire
    allowed = set(here.elements)
    if options.elements is not None:
        for symbol in options.elements:
            if symbol not in atomic_numbers:
                raise unknown("element (acquire.elements)", symbol, list(atomic_numbers))
        allowed = {atomic_numbers[symbol] for symbol in options.elements}
    why: Counter[str] = Counter()
    found = explored.frames
    if options.unphysical:
        computable = [atoms for atoms in explored.unphysical if not evaluators.unusable(atoms)]
        why["not computable"] = len(explored.unphysical) - len(computable)
        found = [*found, *computable]
    near = trusted(found, estimate, calibration, options)
    why["beyond acquire.trust"] = len(found) - len(near)
    left = []
    for atoms in near:
        if not allowed.issuperset(atoms.numbers.tolist()):
            why["with other elements"] += 1
        elif len(atoms) > options.max_atoms:
            why["too large"] += 1
        else:
            left.append(atoms)
    pairs = near_pairs([*known, *left], options.apart)
    taken = set(range(len(known)))
    twins: dict[int, list[int]] = {}
    for i, j in pairs:
        twins.setdefault(j, []).append(i)
    kept = []
    for k in range(len(known), len(known) + len(left)):
        if any(i in taken for i in twins.get(k, [])):
            why["duplicates"] += 1
        else:
            taken.add(k)
            kept.append(left[k - len(known)])
    predicted = evaluators.TorchEvaluator(_subject(here))(kept)
    mild = [float(np.linalg.norm(forces, axis=1).max()) <= settings.dataset.max_force for forces in predicted.forces]
    why["with predicted forces above dataset.max_force"] = mild.count(False)
    kept = [atoms for atoms, fine in zip(kept, mild, strict=True) if fine]
    return kept, {reason: number for reason, number in why.items() if number}


def _subject(here: Source) -> evaluators.Subject:
    """The leading model."""
    return evaluators.describe(str(here.lead), name=here.strategy, head=here.head, device=here.device)


def known_frames(project: Project) -> list[Atoms]:
    """All that has a label or could get none: the sets, test included, and the rounds with their failures."""
    frames = []
    for name in ("train", "valid", "test", "unused", "rejected"):
        path = project.structures(name)
        if path.is_file() and path.stat().st_size:
            frames += read_frames(path)
    for number in rounds.numbers(project.rounds):
        frames += rounds.frames(project.rounds, number) + rounds.frames(project.rounds, number, "failed")
    return [atoms for atoms in frames if not is_isolated_atom(atoms) and np.isfinite(atoms.positions).all()]


def estimator(here: Source, options: Acquire) -> Estimator:
    """The uncertainty, fitted to the training set."""
    module, own = plugins.load("uncertainty", options.uncertainty)
    order = [here.lead_seed, *(seed for seed in here.models if seed != here.lead_seed)]
    models = [here.models[seed] for seed in order]
    found: Estimator = module.fit(estimate.Context(models, here.head, here.device, here.train), own)
    return found


def trusted(frames: Sequence[Atoms], estimate: Estimator, calibration: Calibration, options: Acquire) -> list[Atoms]:
    """`frames` up to where the model may be believed, with ``info["expected_error"]`` (eV/A)."""
    if not frames:
        return []
    scale = Scale.of(calibration)
    expected = np.array([scale.expected(part).max() for part in estimate(frames)])
    kept = []
    for k in within_trust(frames, expected, options.trust if calibration.informative else None):
        frames[k].info["expected_error"] = float(expected[k])
        kept.append(frames[k])
    return kept


def select(candidates: list[Atoms], here: Source, options: Acquire, number: int, seed: int) -> list[Atoms]:
    """`number` structures to label of those that `admissible` left, with ``info`` that says why."""
    expected = np.array([atoms.info["expected_error"] for atoms in candidates])
    described = mean_descriptors(here.lead, candidates, head=here.head, device=here.device)
    labelled = mean_descriptors(here.lead, [*here.train, *here.valid], head=here.head, device=here.device)
    scale = np.maximum(labelled.std(axis=0), 1e-2 * labelled.std(axis=0).max() + 1e-9)
    module, own = plugins.load("select", options.selector)
    pool = Pool(expected, described / scale, labelled / scale)
    picks: list[int] = module.choose(pool, number, own, seed)
    rank = np.argsort(np.argsort(-expected))
    chosen = []
    for place, k in enumerate(picks):
        atoms = candidates[k].copy()
        atoms.info |= {
            "pick": place,
            "expected_error": round(float(min(expected[k], 1e6)), 6),  # eV/A
            "uncertainty_rank": int(rank[k]),
            "of": len(candidates),
            "selector": options.selector.name,
        }
        chosen.append(atoms)
    return chosen


def within_trust(candidates: Sequence[Atoms], expected: np.ndarray, trust: float | None) -> np.ndarray:
    """Indices of candidates up to the first of their path above `trust` (eV/A), that one included.

    What the model explored beyond the point where it did not know any more is not physics.
    """
    if trust is None:
        return np.arange(len(candidates))
    lost: set[str] = set()
    kept = []
    for k, atoms in enumerate(candidates):
        path = str(atoms.info["path"])
        if path not in lost:
            kept.append(k)
            if expected[k] > trust:
                lost.add(path)
    return np.array(kept, dtype=int)
