"""Whether the labels of a data set are of one kind: `retemper.prepare.mixture` on a foundation's own errors."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.core.output import log
from retemper.data.charge import charge_of, spin_of
from retemper.data.energies_by_element import fractions
from retemper.data.frames import ENERGY, FORCES, is_isolated_atom, stream_frames
from retemper.models import heads
from retemper.prepare import mixture, mixture_fit
from retemper.prepare.mixture import Finding
from retemper.prepare.mixture_fit import Errors
from retemper.records.dataset import DatasetManifest
from retemper.records.e0s import Levels

SETS = ("train", "valid", "test")
LISTED = "mixed.csv"  # beside e0s.json: the frames of a mixture


def errors_of(model: Path, frames: Sequence[Atoms], *, head: str | None = None, device: str = "cpu") -> Errors:
    """What a model misses of the labels of `frames`, and what may explain it."""
    from retemper.models import descriptors, predict

    predicted = predict.predict(model, frames, head=head, device=device, progress=True)
    atoms = np.array([len(frame) for frame in frames])
    label = np.array([float(frame.info[ENERGY]) for frame in frames])
    off = [
        float(np.sqrt(((forces - frame.arrays[FORCES]) ** 2).mean())) if FORCES in frame.arrays else 0.0
        for forces, frame in zip(predicted.forces, frames, strict=True)
    ]
    return Errors(
        per_atom=(label - predicted.energy) / atoms,
        shares=fractions(frames)[0],
        atoms=atoms,
        features=descriptors.mean_descriptors(model, frames, head=head, device=device, progress=True),
        states=[f"{charge_of(frame):g} {spin_of(frame)}" for frame in frames],
        forces=np.array(off),
        sources=[str(frame.info.get("source", f"frames:{k}")) for k, frame in enumerate(frames)],
    )


def sample(project: Project, most: int = mixture.MOST) -> list[Atoms]:
    """Labelled frames of training, validation and test set; of more than `most` every second, third, ..."""
    sets = DatasetManifest.read(project.manifest).sets if project.manifest.is_file() else {}
    total = sum(sets[name].frames for name in SETS) if sets else 0
    stride = -(-total // most) or 1
    return [atoms for k, atoms in enumerate(_every(project)) if k % stride == 0]


def _every(project: Project) -> Iterator[Atoms]:
    for path in map(project.structures, SETS):
        if path.is_file() and path.stat().st_size:
            yield from (atoms for atoms in stream_frames(path) if not is_isolated_atom(atoms))


def require_one_level(project: Project) -> Levels:
    """Test the labels of the data set against a foundation's errors; says what was found, also that nothing was tested.

    The foundation's E0s need not be those of the labels. The frames of a mixture are listed in `LISTED` beside the
    E0s; with ``e0s.mixed: warn`` it is no error.

    Raises
    ------
    RetemperError
        A mixture.
    """
    frames = sample(project)
    if len(frames) < mixture.FEWEST:
        text = f"labels of one level of theory: not tested, {len(frames)} frames are fewer than {mixture.FEWEST}"
        log.info(text)
        return Levels(frames=0, scatter=None, findings=[], sentence=text)
    device = project.settings.finetune.device
    errors = errors_of(project.weights, frames, head=heads.of_foundation(project), device=device)
    rest = mixture_fit.unexplained(errors)
    findings = mixture.examine(errors, rest)
    width = mixture_fit.scatter(rest)
    text = f"labels of one level of theory: {len(frames)} frames tested, scatter {1000 * width:.1f} meV/atom"
    log.info(text)
    for finding in findings:
        log.warning(f"warning: {finding.sentence()}")
    mixed = [finding for finding in findings if finding.stops]
    if mixed:
        path = project.e0s.with_name(LISTED)
        _list(path, mixed, errors, rest)
        if project.settings.e0s.mixed == "refuse":
            raise _refusal(mixed, path)
    return Levels(
        frames=len(frames),
        scatter=width,
        findings=[finding.recorded() for finding in findings],
        sentence="; ".join([text, *(finding.sentence() for finding in findings)]),
    )


def _refusal(mixed: Sequence[Finding], listed: Path) -> RetemperError:
    return RetemperError(
        "The labels are not of one kind: the foundation's energy errors have offsets that neither composition, "
        "charge nor structure explain.\n  " + "\n  ".join(finding.sentence() for finding in mixed),
        expected="one level of theory, one zero of energy, charge and spin in every frame that has them",
        got=f"{sum(len(finding.frames) for finding in mixed)} frames, listed in {listed}",
        fix="correct or remove these labels; or name the level of each file that has another one in dataset.levels, "
        "which leaves its frames out; or, where you know that all are right, set e0s.mixed: warn",
    )


def _list(path: Path, mixed: Sequence[Finding], errors: Errors, rest: np.ndarray) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source", "finding", "unexplained_meV_per_atom"])
        for finding in mixed:
            writer.writerows([errors.sources[k], finding.kind, f"{1000 * rest[k]:.1f}"] for k in finding.frames)
