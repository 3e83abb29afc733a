"""How accurate models are on the target's test set, and what they forgot of the pretraining distribution."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.metric_names import DRIFT, DRIFT_OF, FORGETTING, OTHER_HEAD, RETENTION, TARGET
from retemper.config.project import FOUNDATION, Project
from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, sha256
from retemper.core.output import log
from retemper.data.frames import FORCES, is_isolated_atom, labels_hash, read_frames
from retemper.data.grouping import groups_of
from retemper.evaluation import accuracy
from retemper.evaluation.accuracy import FrameErrors
from retemper.models import heads, mace, predict
from retemper.models.head_names import REPLAY, name_of
from retemper.prepare import pseudolabel, reference_set, retention_file
from retemper.prepare.overlap import audit
from retemper.records.e0s import ReferenceEnergies
from retemper.records.evaluation import Accuracy, Errors, Evaluation, Summary, fields
from retemper.records.record import OtherFormError
from retemper.records.training import TrainingSummary

METRICS, FRAMES = "metrics.json", "frames.csv"
PARITY = 2000  # force components kept for the parity plot, per seed and set
SUBSET_SEED = 0  # of the retention subset and of the parity plot: the same for every model


@dataclass(frozen=True)
class Measured:
    """One model with one head on one set."""

    head: str
    errors: FrameErrors
    report: Errors
    parity: list[tuple[float, float]]  # reference, predicted force components, eV/A


@dataclass(frozen=True)
class HeldOut:
    """What every model of a project is measured on."""

    project: Project
    head: str  # the foundation's head
    target: list[Atoms]
    retention: list[Atoms]  # empty when there is none
    kind: str = RETENTION  # or DRIFT: its labels are the foundation's own predictions


# ------------------------------------------------------------------ sets


def read_sets(project: Project) -> HeldOut:
    """Read the sets; the foundation's weights are checked on the way."""
    settings = project.settings
    target = [atoms for atoms in read_frames(project.structures("test")) if not is_isolated_atom(atoms)]
    if not target:
        raise RetemperError(
            "runs/dataset/test.extxyz holds isolated atoms only.", fix="raise dataset.test, or give more data"
        )
    source = retention_file.path(project)
    if source is None:
        log.info("evaluate: no retention set (evaluate.retention): what was forgotten is not measured")
    retention = retention_set(source, settings.evaluate.max_retention, settings.dataset) if source else []
    kind = DRIFT if retention_file.labelled_by_foundation(retention) else RETENTION
    return HeldOut(project, heads.of_foundation(project), target, retention, kind)


def retention_set(path: Path, maximum: int | None, limits: Dataset) -> list[Atoms]:
    """Held-out pretraining structures, checked, without isolated atoms; a fixed random subset of at most `maximum`."""
    frames = [atoms for atoms in reference_set.read(path, limits) if not is_isolated_atom(atoms)]
    if maximum is not None and len(frames) > maximum:
        indices = np.sort(np.random.default_rng(SUBSET_SEED).permutation(len(frames))[:maximum])
        frames = [frames[i] for i in indices]
    return frames


def reference_energies(frames: Sequence[Atoms], E0s: dict[int, float]) -> np.ndarray:
    """[n] eV: sum of the atomic reference energies of each frame."""
    return np.array([sum(E0s[int(z)] for z in atoms.numbers) for atoms in frames])


# ------------------------------------------------------------------ one model


def measure(
    sets: HeldOut,
    model: Path,
    head: str,
    frames: Sequence[Atoms],
    exchange: tuple[dict[int, float], dict[int, float]] | None = None,
) -> Measured:
    """Errors of `model` on `frames`; `exchange` replaces its atomic reference energies (first) by others (second)."""
    settings = sets.project.settings
    options = settings.evaluate
    predicted = predict.predict(
        model,
        frames,
        head=head,
        dtype=options.dtype,
        device=settings.finetune.device,
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
        report.energy_rmse_unshifted = accuracy.values(unshifted)["energy_rmse"]
    reference = np.concatenate([atoms.arrays[FORCES].ravel() for atoms in frames])
    values = np.concatenate([forces.ravel() for forces in predicted.forces])
    indices = np.random.default_rng(SUBSET_SEED).permutation(len(reference))[:PARITY]
    parity = [(float(reference[i]), float(values[i])) for i in np.sort(indices)]
    return Measured(head, errors, report, parity)


def measure_foundation(sets: HeldOut) -> dict[str, Measured]:
    """The foundation on both sets; on the target with the atomic reference energies of ``runs/e0s``.

    From its own predictions there is nothing to measure.
    """
    model = sets.project.weights
    fitted = ReferenceEnergies.read(sets.project.e0s).E0s
    by_set = {TARGET: measure(sets, model, sets.head, sets.target, (mace.atomic_energies(model, sets.head), fitted))}
    if sets.retention and sets.kind == RETENTION:
        by_set[RETENTION] = measure(sets, model, sets.head, sets.retention)
    return by_set


def measure_fine_tuned(sets: HeldOut, model: Path) -> dict[str, Measured]:
    """A fine-tuned model on both sets, its target head and, when it has them, its replay head and those kept alive."""
    head = mace.pick_head(model)
    by_set = {TARGET: measure(sets, model, head, sets.target)}
    if sets.retention:
        exchange = mace.atomic_energies(model, head), mace.atomic_energies(sets.project.weights, sets.head)
        by_set[sets.kind] = measure(sets, model, head, sets.retention, exchange)
        if REPLAY in mace.heads(model):
            by_set[OTHER_HEAD[sets.kind]] = measure(sets, model, REPLAY, sets.retention)
        for kept, origin in _kept(sets, model).items():
            by_set[f"{DRIFT_OF}{origin}"] = measure(sets, model, kept, _labelled(sets, origin))
    return by_set


def _kept(sets: HeldOut, model: Path) -> dict[str, str]:
    """Heads of a model that are the foundation's, kept alive, with the foundation's names."""
    origins = {name_of(origin): origin for origin in mace.heads(sets.project.weights)}
    return {head: origins[head] for head in mace.heads(model) if head in origins}


def _labelled(sets: HeldOut, head: str) -> list[Atoms]:
    """The structures of the retention set with the labels of a head of the foundation, as models are evaluated."""
    project = sets.project
    dtype, device = project.settings.evaluate.dtype, project.settings.finetune.device
    name, cache = project.foundation.name, project.cache("pseudolabels")
    return pseudolabel.label(
        project.weights, sets.retention, name=name, head=head, dtype=dtype, device=device, cache=cache
    ).frames


# ------------------------------------------------------------------ the foundation as the measure of forgetting


def identity(sets: HeldOut) -> dict[str, str]:
    """What decides the foundation's errors: results with the same identity may be compared."""
    return {
        "foundation_sha256": sha256(sets.project.weights),
        "foundation_head": sets.head,
        "target": labels_hash(sets.target),
        "retention": labels_hash(sets.retention),
        "dtype": sets.project.settings.evaluate.dtype,
    }


def foundation_retention(sets: HeldOut) -> FrameErrors:
    """The foundation's errors on the retention set; of those read from a file only the forces count.

    Read from ``runs/evaluate/foundation`` when that was measured on the same frames with the
    same weights, else computed.
    """
    folder = sets.project.evaluation(FOUNDATION)
    if not (folder / METRICS).is_file():
        log.info("evaluate: runs/evaluate/foundation is not there: measuring the foundation")
    elif _is_comparable(folder / METRICS, sets):
        return _forces_of(folder / FRAMES, groups_of(sets.retention))
    else:
        log.info("evaluate: runs/evaluate/foundation is of other frames or weights: measuring the foundation again")
    return measure(sets, sets.project.weights, sets.head, sets.retention).errors


def _is_comparable(path: Path, sets: HeldOut) -> bool:
    """Whether an evaluation is of the same weights and retention set."""
    try:
        recorded = Evaluation.read(path).identity
    except OtherFormError:
        return False
    return all(recorded.get(key) == value for key, value in identity(sets).items() if key != "target")


def _forces_of(path: Path, groups: list[str]) -> FrameErrors:
    """Force errors on the retention set, as ``frames.csv`` has them."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == RETENTION]
    n_atoms = np.array([int(row["n_atoms"]) for row in rows])
    zeros = np.zeros(len(rows))
    return FrameErrors(
        n_atoms=n_atoms,
        config_type=[row["config_type"] for row in rows],
        group=groups,
        energy=zeros,
        force_abs=zeros,
        force_sq=np.array([float(row["force_rmse"]) for row in rows]) ** 2 * 3 * n_atoms,
        stress_abs=zeros,
        stress_sq=zeros,
        n_stress=zeros.astype(int),
    )


# ------------------------------------------------------------------ the stage


def run(project: Project, name: str) -> Evaluation:
    """Evaluate a strategy (every seed) or "foundation" into ``runs/evaluate/<name>``.

    Raises
    ------
    RetemperError
        No such strategy; a retention structure that was trained on (or one within ``dataset.near_duplicate`` of it; of
        replayed ones also one of their groups); a model or label that is missing; an output that is not finite.
    """
    project.check_name(name)
    sets = read_sets(project)
    seeds: dict[int, dict[str, Measured]] = {}
    if name == FOUNDATION:
        seeds[0] = measure_foundation(sets)
        _say(name, 0, seeds[0])
    else:
        _check_retention(sets)
        for seed in sorted(TrainingSummary.read(project.summary(name)).seeds):
            seeds[seed] = measure_fine_tuned(sets, project.model(name, seed))
            _say(name, seed, seeds[seed])
    summary = _summary(sets, name, list(seeds.values()))
    evaluation = Evaluation(
        name=name,
        system=project.settings.system,
        foundation=project.settings.foundation,
        identity=identity(sets),
        seeds={seed: accuracy_of(by_set) for seed, by_set in seeds.items()},
        summary=summary,
    )
    with atomic_folder(project.evaluation(name)) as out:
        evaluation.write(out / METRICS)
        _write_csv(out / FRAMES, FRAME_COLUMNS, _frame_rows(seeds))
        _write_csv(out / "parity.csv", ("seed", "set", "reference", "predicted"), _parity_rows(seeds))
    return evaluation


def accuracy_of(by_set: Mapping[str, Measured]) -> Accuracy:
    """The errors of one model by set, as they are written."""
    return Accuracy(**fields({name: on_set.report for name, on_set in by_set.items()}))


def _check_retention(sets: HeldOut) -> None:
    """Raise where a structure of the retention set was trained on."""
    tolerance = sets.project.settings.dataset.near_duplicate
    for folder in (sets.project.replay, sets.project.dataset):
        for path in (folder / "train.extxyz", folder / "valid.extxyz"):
            if sets.retention and path.is_file() and path.stat().st_size:
                label, same_origin = str(path.relative_to(sets.project.root)), folder == sets.project.replay
                audit(read_frames(path), sets.retention, label, tolerance=tolerance, groups=same_origin)


def _summary(sets: HeldOut, name: str, seeds: Sequence[Mapping[str, Measured]]) -> Summary:
    """Means over seeds. Ratios to the foundation on the retention set are written into each seed's report, too.

    The labels of the retention set are of the foundation's level of theory. Where the target's is another, the ratio
    holds the change of the level as well as what was forgotten.
    """
    confidence = sets.project.settings.evaluate.confidence
    errors_by_set = {part: [by_set[part].errors for by_set in seeds] for part in seeds[0]}
    ratios = {}
    if RETENTION in errors_by_set:
        base = errors_by_set[RETENTION][0] if name == FOUNDATION else foundation_retention(sets)
        for part in (part for part in FORGETTING if part in errors_by_set):
            ratios[FORGETTING[part]] = accuracy.ratio(errors_by_set[part], base, "force_rmse", confidence)
            for by_set in seeds:
                errors = by_set[part].errors
                by_set[part].report.forgetting_ratio = accuracy.ratio([errors], base, "force_rmse", confidence)
    return Summary.model_validate(
        fields({part: accuracy.means(errors, confidence) for part, errors in errors_by_set.items()}) | ratios
    )


def _say(name: str, seed: int, by_set: Mapping[str, Measured]) -> None:
    for part, on_set in by_set.items():
        report, force = on_set.report, on_set.report.force_rmse
        assert force is not None and report.energy_rmse is not None
        interval = "" if force.low is None else f" [{force.low:.1f}, {force.high:.1f}]"
        log.info(
            f"evaluate: {name} seed {seed}, {part} ({report.n_frames} structures, {report.n_groups} groups, "
            f"head {on_set.head}): energy RMSE {report.energy_rmse.value:.1f} meV/atom, "
            f"force RMSE {force.value:.1f}{interval} meV/A"
        )


FRAME_COLUMNS = ("seed", "set", "head", "frame", "n_atoms", "config_type", "group", "energy_error", "force_rmse")


def _frame_rows(seeds: Mapping[int, Mapping[str, Measured]]) -> Iterable[tuple[object, ...]]:
    for seed, by_set in seeds.items():
        for part, on_set in by_set.items():
            e, rmse = on_set.errors, on_set.errors.force_rmse
            for i in range(len(e.energy)):
                row = (seed, part, on_set.head, i, e.n_atoms[i], e.config_type[i], e.group[i])
                yield (*row, f"{e.energy[i]:.6g}", f"{rmse[i]:.9g}")


def _parity_rows(seeds: Mapping[int, Mapping[str, Measured]]) -> Iterable[tuple[object, ...]]:
    for seed, by_set in seeds.items():
        for part, on_set in by_set.items():
            for reference, predicted in on_set.parity:
                yield seed, part, f"{reference:.5f}", f"{predicted:.5f}"


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
