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
from retemper.core.output import log
from retemper.data import rounds
from retemper.data.duplicates import near_pairs
from retemper.data.frames import is_isolated_atom, read_frames
from retemper.models import evaluators
from retemper.models.descriptors import mean_descriptors
from retemper.records.round import Calibration
from retemper.simulation import engine

REFEREES = 4  # structures on which the fast back end must agree with MACE itself
REPEATED = 1_000_000  # between the seeds of explorers of one name: farther than those of a campaign's rounds


def explore(ensemble: Source, options: Acquire, seed: int, cache: Path) -> Explored:
    """What all explorers find with the leading model, each its share of ``acquire.candidates``.

    One that is listed again explores with other random numbers, and its paths have other names.
    """
    starts = [*ensemble.train, *ensemble.valid]
    subject, backend = evaluators.fastest(_subject(ensemble), starts[:REFEREES], ensemble.elements, cache)
    log.info(f"exploring with {ensemble.strategy} through {backend}")

    def run(tasks: Sequence[engine.Task]) -> list[Any]:
        return engine.run(tasks, workers=options.workers, cache=cache, ray=options.ray)

    share = -(-options.candidates // len(options.explorers))
    explored, times = Explored(), Counter[str]()
    for plugin in options.explorers:
        module, plugin_options = plugins.load("explore", plugin)
        repeats = times[plugin.name]
        part = module.explore(
            Context(subject, starts, ensemble.elements, share, seed + REPEATED * repeats, run), plugin_options
        )
        if repeats:
            for atoms in [*part.frames, *part.unphysical]:
                atoms.info["path"] = f"{repeats + 1}:{atoms.info['path']}"
        times[plugin.name] += 1
        explored.merge(part)
    return explored


def admissible(
    explored: Explored,
    estimate: Estimator,
    calibration: Calibration,
    ensemble: Source,
    settings: Settings,
    excluded: Sequence[Atoms],
) -> tuple[list[Atoms], dict[str, int]]:
    """Candidates within the limits that none of `excluded` resembles; and why others are not.

    Paths are left first: the frame that ends one may be turned away itself.
    """
    options = settings.acquire
    elements = set(ensemble.elements)
    if options.elements is not None:
        for symbol in options.elements:
            if symbol not in atomic_numbers:
                raise unknown("element (acquire.elements)", symbol, list(atomic_numbers))
        elements = {atomic_numbers[symbol] for symbol in options.elements}
    reasons: Counter[str] = Counter()
    frames = explored.frames
    if options.unphysical:
        computable = [atoms for atoms in explored.unphysical if not evaluators.unusable(atoms)]
        reasons["not computable"] = len(explored.unphysical) - len(computable)
        frames = [*frames, *computable]
    believed = trusted_frames(frames, estimate, calibration, options)
    reasons["beyond acquire.trust"] = len(frames) - len(believed)
    suitable = []
    for atoms in believed:
        if not elements.issuperset(atoms.numbers.tolist()):
            reasons["with other elements"] += 1
        elif len(atoms) > options.max_atoms:
            reasons["too large"] += 1
        else:
            suitable.append(atoms)
    pairs = near_pairs([*excluded, *suitable], options.apart)
    occupied = set(range(len(excluded)))
    twins: dict[int, list[int]] = {}
    for i, j in pairs:
        twins.setdefault(j, []).append(i)
    unique = []
    for k in range(len(excluded), len(excluded) + len(suitable)):
        if any(i in occupied for i in twins.get(k, [])):
            reasons["duplicates"] += 1
        else:
            occupied.add(k)
            unique.append(suitable[k - len(excluded)])
    predicted = evaluators.TorchEvaluator(_subject(ensemble))(unique)
    mild = [float(np.linalg.norm(forces, axis=1).max()) <= settings.dataset.max_force for forces in predicted.forces]
    reasons["with predicted forces above dataset.max_force"] = mild.count(False)
    unique = [atoms for atoms, is_mild in zip(unique, mild, strict=True) if is_mild]
    return unique, {reason: number for reason, number in reasons.items() if number}


def _subject(ensemble: Source) -> evaluators.Subject:
    """The leading model."""
    return evaluators.describe(str(ensemble.lead), name=ensemble.strategy, head=ensemble.head, device=ensemble.device)


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


def estimator(ensemble: Source, options: Acquire) -> Estimator:
    """The uncertainty, fitted to the training set."""
    module, plugin_options = plugins.load("uncertainty", options.uncertainty)
    order = [ensemble.lead_seed, *(seed for seed in ensemble.models if seed != ensemble.lead_seed)]
    models = [ensemble.models[seed] for seed in order]
    fitted: Estimator = module.fit(
        estimate.Context(models, ensemble.head, ensemble.device, ensemble.train), plugin_options
    )
    return fitted


def trusted_frames(
    frames: Sequence[Atoms], estimate: Estimator, calibration: Calibration, options: Acquire
) -> list[Atoms]:
    """`frames` up to where the model may be believed, with ``info["expected_error"]`` (eV/A)."""
    if not frames:
        return []
    scale = Scale.of(calibration)
    expected = np.array([scale.expected(part).max() for part in estimate(frames)])
    selected = []
    for k in within_trust(frames, expected, options.trust if calibration.informative else None):
        frames[k].info["expected_error"] = float(expected[k])
        selected.append(frames[k])
    return selected


def select(candidates: list[Atoms], ensemble: Source, options: Acquire, number: int, seed: int) -> list[Atoms]:
    """`number` structures to label of those that `admissible` left, with ``info`` that says why."""
    expected = np.array([atoms.info["expected_error"] for atoms in candidates])
    descriptors = mean_descriptors(ensemble.lead, candidates, head=ensemble.head, device=ensemble.device)
    labelled_descriptors = mean_descriptors(
        ensemble.lead, [*ensemble.train, *ensemble.valid], head=ensemble.head, device=ensemble.device
    )
    scale = np.maximum(labelled_descriptors.std(axis=0), 1e-2 * labelled_descriptors.std(axis=0).max() + 1e-9)
    module, plugin_options = plugins.load("select", options.selector)
    pool = Pool(expected, descriptors / scale, labelled_descriptors / scale)
    picks: list[int] = module.choose(pool, number, plugin_options, seed)
    rank = np.argsort(np.argsort(-expected))
    structures = []
    for place, k in enumerate(picks):
        atoms = candidates[k].copy()
        atoms.info |= {
            "pick": place,
            "expected_error": round(float(min(expected[k], 1e6)), 6),  # eV/A
            "uncertainty_rank": int(rank[k]),
            "of": len(candidates),
            "selector": options.selector.name,
        }
        structures.append(atoms)
    return structures


def within_trust(candidates: Sequence[Atoms], expected: np.ndarray, trust: float | None) -> np.ndarray:
    """Indices of candidates up to the first of their path above `trust` (eV/A), that one included.

    What the model explored beyond the point where it did not know any more is not physics.
    """
    if trust is None:
        return np.arange(len(candidates))
    abandoned: set[str] = set()
    indices = []
    for k, atoms in enumerate(candidates):
        path = str(atoms.info["path"])
        if path not in abandoned:
            indices.append(k)
            if expected[k] > trust:
                abandoned.add(path)
    return np.array(indices, dtype=int)
