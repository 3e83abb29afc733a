"""How accurate models are on the target's test set, and what they forgot of the pretraining distribution."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.foundations import find, weights
from retemper.config.settings import Dataset, Settings
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, read_json, sha256, write_json
from retemper.data.frames import FORCES, is_isolated_atom, labels_hash, read_frames
from retemper.data.grouping import groups_of
from retemper.evaluation import accuracy
from retemper.evaluation.accuracy import FrameErrors
from retemper.models import mace, predict
from retemper.prepare import reference_set
from retemper.prepare.replay import audit
from retemper.records.training import TrainingSummary

FOUNDATION = "foundation"
TARGET, RETENTION, REPLAY_HEAD = "target", "retention", "retention_replay_head"
PARITY = 2000  # force components kept for the parity plot, per seed and set
SUBSET_SEED = 0  # of the retention subset and of the parity plot: the same for every model


@dataclass(frozen=True)
class Measured:
    """One model with one head on one set."""

    head: str
    errors: FrameErrors
    report: dict[str, Any]
    parity: list[tuple[float, float]]  # reference, predicted force components, eV/A


@dataclass(frozen=True)
class Context:
    """What every model is measured on and with."""

    settings: Settings
    root: Path
    model: Path  # the foundation's weights
    head: str  # the foundation's head
    target: list[Atoms]
    retention: list[Atoms]  # empty when there is none


# ------------------------------------------------------------------ sets


def context(settings: Settings, root: Path) -> Context:
    """Read the sets; the foundation's weights are checked on the way."""
    foundation = find(settings.foundation, root)
    model = weights(foundation, root)
    target = [atoms for atoms in read_frames(root / "runs/dataset/test.extxyz") if not is_isolated_atom(atoms)]
    if not target:
        raise RetemperError(
            "runs/dataset/test.extxyz holds isolated atoms only.", fix="raise dataset.test, or give more data"
        )
    source = settings.evaluate.retention or foundation.retention
    if source is None:
        print("evaluate: no retention set (evaluate.retention): what was forgotten is not measured", flush=True)
    retention = retention_set(root / source, settings.evaluate.max_retention, settings.dataset) if source else []
    return Context(settings, root, model, mace.pick_head(model, foundation.head), target, retention)


def retention_set(path: Path, maximum: int | None, limits: Dataset) -> list[Atoms]:
    """Held-out pretraining structures, checked, without isolated atoms; a fixed random subset of at most `maximum`."""
    frames = [atoms for atoms in reference_set.read(path, limits) if not is_isolated_atom(atoms)]
    if maximum is not None and len(frames) > maximum:
        chosen = np.sort(np.random.default_rng(SUBSET_SEED).permutation(len(frames))[:maximum])
        frames = [frames[i] for i in chosen]
    return frames


def reference_energies(frames: Sequence[Atoms], E0s: dict[int, float]) -> np.ndarray:
    """[n] eV: sum of the atomic reference energies of each frame."""
    return np.array([sum(E0s[int(z)] for z in atoms.numbers) for atoms in frames])


# ------------------------------------------------------------------ one model


def measure(
    here: Context,
    model: Path,
    head: str,
    frames: Sequence[Atoms],
    exchange: tuple[dict[int, float], dict[int, float]] | None = None,
) -> Measured:
    """Errors of `model` on `frames`; `exchange` replaces its atomic reference energies (first) by others (second)."""
    options = here.settings.evaluate
    predicted = predict.predict(
        model,
        frames,
        head=head,
        dtype=options.dtype,
        device=here.settings.finetune.device,
        backend=options.backend,
        progress=True,
    )
    shift = None
    if exchange is not None:
        shift = reference_energies(frames, exchange[1]) - reference_energies(frames, exchange[0])
    groups = groups_of(frames)
    errors = accuracy.frame_errors(frames, predicted, groups, shift)
    report = accuracy.summarise(errors, options.confidence)
    if exchange is not None:
        unshifted = accuracy.frame_errors(frames, predicted, groups)
        report["energy_rmse_unshifted"] = accuracy.values(unshifted)["energy_rmse"]
    reference = np.concatenate([atoms.arrays[FORCES].ravel() for atoms in frames])
    values = np.concatenate([forces.ravel() for forces in predicted.forces])
    chosen = np.random.default_rng(SUBSET_SEED).permutation(len(reference))[:PARITY]
    parity = [(float(reference[i]), float(values[i])) for i in np.sort(chosen)]
    return Measured(head, errors, report, parity)


def foundation_itself(here: Context) -> dict[str, Measured]:
    """The foundation on both sets; on the target with the atomic reference energies of ``runs/e0s``."""
    own = mace.atomic_energies(here.model, here.head)
    fitted = {int(z): float(e) for z, e in read_json(here.root / "runs/e0s/e0s.json")["E0s"].items()}
    parts = {TARGET: measure(here, here.model, here.head, here.target, (own, fitted))}
    if here.retention:
        parts[RETENTION] = measure(here, here.model, here.head, here.retention)
    return parts


def fine_tuned(here: Context, model: Path) -> dict[str, Measured]:
    """A fine-tuned model on both sets, its target head and, when it has one, its replay head."""
    head = mace.pick_head(model)
    parts = {TARGET: measure(here, model, head, here.target)}
    if here.retention:
        exchange = mace.atomic_energies(model, head), mace.atomic_energies(here.model, here.head)
        parts[RETENTION] = measure(here, model, head, here.retention, exchange)
        others = [other for other in mace.heads(model) if other != head]
        if others:
            parts[REPLAY_HEAD] = measure(here, model, others[0], here.retention)
    return parts


# ------------------------------------------------------------------ the foundation as the measure of forgetting


def identity(here: Context) -> dict[str, str]:
    """What decides the foundation's errors: results with the same identity may be compared."""
    return {
        "foundation_sha256": sha256(here.model),
        "foundation_head": here.head,
        "target": labels_hash(here.target),
        "retention": labels_hash(here.retention),
        "dtype": here.settings.evaluate.dtype,
    }


def foundation_retention(here: Context) -> FrameErrors:
    """The foundation's errors on the retention set; of those read from a file only the forces count.

    Read from ``runs/evaluate/foundation`` when that was measured on the same frames with the
    same weights, else computed.
    """
    folder = here.root / "runs/evaluate" / FOUNDATION
    own = identity(here)
    if (folder / "metrics.json").is_file():
        recorded = read_json(folder / "metrics.json").get("identity", {})
        if all(recorded.get(key) == own[key] for key in own if key != "target"):
            with (folder / "frames.csv").open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["set"] == RETENTION]
            n_atoms = np.array([int(row["n_atoms"]) for row in rows])
            square = np.array([float(row["force_rmse"]) for row in rows]) ** 2 * 3 * n_atoms
            nothing = np.zeros(len(rows))
            return FrameErrors(
                n_atoms=n_atoms,
                config_type=[row["config_type"] for row in rows],
                group=groups_of(here.retention),
                energy=nothing,
                force_abs=nothing,
                force_sq=square,
                stress_abs=nothing,
                stress_sq=nothing,
                n_stress=nothing.astype(int),
            )
        print(
            "evaluate: runs/evaluate/foundation is of other frames or weights: measuring the foundation again",
            flush=True,
        )
    else:
        print("evaluate: runs/evaluate/foundation is not there: measuring the foundation", flush=True)
    return measure(here, here.model, here.head, here.retention).errors


def forgetting(here: Context, name: str, seeds: dict[str, dict[str, Measured]]) -> dict[str, dict[str, float | None]]:
    """Force RMSE on the retention set over the foundation's own: means over seeds by head; each seed's into its report.

    The labels of the retention set are of the foundation's level of theory. Where the target's is another, the ratio
    holds the change of the level as well as what was forgotten.
    """
    first, summary = next(iter(seeds.values())), {}
    if RETENTION not in first:
        return {}
    base = first[RETENTION].errors if name == FOUNDATION else foundation_retention(here)
    confidence = here.settings.evaluate.confidence
    for part, key in ((RETENTION, "forgetting_ratio"), (REPLAY_HEAD, "forgetting_ratio_replay_head")):
        if part not in first:
            continue
        for parts in seeds.values():
            parts[part].report["forgetting_ratio"] = accuracy.ratio(parts[part].errors, base, "force_rmse", confidence)
        every = [parts[part].errors for parts in seeds.values()]
        summary[key] = accuracy.ratio_over_seeds(every, base, "force_rmse", confidence)
    return summary


# ------------------------------------------------------------------ the stage


def run(name: str, settings: Settings, root: Path) -> dict[str, Any]:
    """Evaluate a strategy (every seed) or "foundation" into ``runs/evaluate/<name>``; returns its metrics.

    Raises
    ------
    RetemperError
        A retention structure that was trained on (or one within ``dataset.near_duplicate`` of it; of
        replayed ones also one of their groups), a model or label that is missing, an output
        that is not finite.
    """
    here = context(settings, root)
    seeds: dict[str, dict[str, Measured]] = {}
    if name == FOUNDATION:
        seeds["0"] = foundation_itself(here)
        _say(name, "0", seeds["0"])
    else:
        for seen in ("replay/train", "replay/valid", "dataset/train", "dataset/valid"):
            path = root / f"runs/{seen}.extxyz"
            if here.retention and path.is_file() and path.stat().st_size:
                near, alike = settings.dataset.near_duplicate, seen.startswith("replay")
                audit(read_frames(path), here.retention, f"runs/{seen}.extxyz", tolerance=near, groups=alike)
        folder = root / "runs/finetune" / name
        for seed in map(str, sorted(TrainingSummary.read(folder / "summary.json").seeds)):
            seeds[seed] = fine_tuned(here, folder / f"seed-{seed}" / weight_files.NAME)
            _say(name, seed, seeds[seed])
    summary = _summary(here, name, seeds)
    metrics = {
        "name": name,
        "system": settings.system,
        "foundation": settings.foundation,
        "identity": identity(here),
        "seeds": {seed: {part: m.report for part, m in parts.items()} for seed, parts in seeds.items()},
        "summary": summary,
    }
    with atomic_folder(root / "runs/evaluate" / name) as out:
        write_json(out / "metrics.json", metrics)
        _write_csv(out / "frames.csv", FRAME_COLUMNS, _frame_rows(seeds))
        _write_csv(
            out / "parity.csv",
            ("seed", "set", "reference", "predicted"),
            (
                (seed, part, f"{reference:.5f}", f"{predicted:.5f}")
                for seed, parts in seeds.items()
                for part, m in parts.items()
                for reference, predicted in m.parity
            ),
        )
    return metrics


def _summary(here: Context, name: str, seeds: dict[str, dict[str, Measured]]) -> dict[str, Any]:
    confidence = here.settings.evaluate.confidence
    summary: dict[str, Any] = {TARGET: None, RETENTION: None, "forgetting_ratio": None}
    for part in next(iter(seeds.values())):
        every = [parts[part].errors for parts in seeds.values()]
        summary[part] = {metric: accuracy.over_seeds(every, metric, confidence) for metric in accuracy.METRICS}
    return summary | forgetting(here, name, seeds)


def _say(name: str, seed: str, parts: dict[str, Measured]) -> None:
    for part, measured in parts.items():
        r = measured.report
        force = r["force_rmse"]
        interval = "" if force["low"] is None else f" [{force['low']:.1f}, {force['high']:.1f}]"
        print(
            f"evaluate: {name} seed {seed}, {part} ({r['n_frames']} structures, {r['n_groups']} groups, "
            f"head {measured.head}): energy RMSE {r['energy_rmse']['value']:.1f} meV/atom, "
            f"force RMSE {force['value']:.1f}{interval} meV/A",
            flush=True,
        )


FRAME_COLUMNS = ("seed", "set", "head", "frame", "n_atoms", "config_type", "group", "energy_error", "force_rmse")


def _frame_rows(seeds: dict[str, dict[str, Measured]]) -> Iterable[tuple[object, ...]]:
    for seed, parts in seeds.items():
        for part, m in parts.items():
            e = m.errors
            rmse = e.force_rmse
            for i in range(len(e.energy)):
                about = (seed, part, m.head, i, e.n_atoms[i], e.config_type[i], e.group[i])
                yield (*about, f"{e.energy[i]:.6g}", f"{rmse[i]:.9g}")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
