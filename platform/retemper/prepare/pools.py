"""The pools of structures to replay, read or made, and their labels against the foundation's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ase import Atoms

from retemper.config import pretraining_data
from retemper.config.pretraining_data import PoolSource
from retemper.config.project import Project
from retemper.core.files import sha256
from retemper.core.output import log
from retemper.data.frames import is_isolated_atom
from retemper.data.grouping import MIN_FRAMES, group_frames
from retemper.data.units.predicted import Predict, Predicted
from retemper.models import heads
from retemper.prepare import generated_pool, pool_check, reference_set
from retemper.prepare.generated_pool import Energies
from retemper.prepare.overlap import apart
from retemper.prepare.predictor import energies_of, predictor
from retemper.prepare.replay_choice import has_labels
from retemper.records.replay import Agreement, PoolOfReplay

SHARE = 0.15  # of a pool, about, that is for validation, and that is kept apart
FROM = 3  # structures made for each one that farthest-point sampling chooses


@dataclass(frozen=True)
class Pool:
    """One pool; the frames of `labelled` ones have energy and forces."""

    source: PoolSource
    sha256: str | None
    frames: list[Atoms]
    agreement: Agreement | None  # of the labels with the foundation's

    @property
    def labelled(self) -> bool:
        return any(map(has_labels, self.frames))

    @property
    def of_the_foundations_level(self) -> bool:
        """Whether the labels are the foundation's kind, as far as it can tell."""
        return self.labelled and self.agreement is not None and not pool_check.doubtful(self.agreement)

    def record(self, train: int, valid: int) -> PoolOfReplay:
        """As it is written, with the numbers of chosen structures."""
        return PoolOfReplay(
            name=self.source.name,
            sha256=self.sha256,
            labels="original" if self.labelled else "foundation",
            agreement=self.agreement,
            structures=len(self.frames),
            train=train,
            valid=valid,
        )


def read(project: Project, retention: Sequence[Atoms]) -> list[Pool]:
    """Every pool of ``replay.pools``; generated structures that are of `retention` are left out."""
    sources = pretraining_data.pools(project.settings, project.foundation)
    return [_generated(project, s, retention) if s.generated else _of_file(project, s) for s in sources]


def retention(project: Project, name: str) -> list[Atoms]:
    """The retention set of a file, its units checked."""
    path = project.root / name
    frames = reference_set.read(path, project.settings.dataset)
    _judge_units(frames, path.name, _predictor(project))
    return frames


def _predictor(project: Project) -> Predict:
    return predictor(project.weights, heads.of_foundation(project), project.settings.finetune.device)


def _judge_units(frames: list[Atoms], name: str, predict: Predict) -> None:
    for text in reference_set.judge_units(frames, name, predict):
        log.warning(f"replay: warning: {text}")


def _of_file(project: Project, source: PoolSource) -> Pool:
    """A file, checked as the data set's own; the foundation predicts one sample of it, for units and agreement."""
    path = source.path(project.root)
    frames = _with_groups(reference_set.read_pool(path, source, project.settings.dataset), source.name)
    labelled = [atoms for atoms in frames if has_labels(atoms)]
    agreement = None
    if labelled:
        predict = _once(_predictor(project))
        _judge_units(labelled, path.name, predict)
        predicted = predict([atoms for atoms in labelled if not is_isolated_atom(atoms)])
        agreement = None if predicted is None else pool_check.agreement(predicted)
    else:
        frames = _sane(project, frames, source.name)
    return Pool(source, sha256(path), frames, agreement)


def _sane(project: Project, frames: list[Atoms], name: str) -> list[Atoms]:
    """`frames` without those whose labels by the foundation would not pass the checks of forces and stress."""
    from retemper.models import mace

    known, limits = set(mace.elements(project.weights)), project.settings.dataset
    asked = [atoms for atoms in frames if set(atoms.numbers.tolist()) <= known]
    _, forces = _energies(project)(asked)
    absurd = {id(atoms) for atoms, force in zip(asked, forces, strict=True) if not force <= limits.max_force}
    if absurd:
        log.info(f"replay: {name}: {len(absurd)} structure(s) left out, in which the foundation finds absurd forces")
    return [atoms for atoms in frames if id(atoms) not in absurd]


def _energies(project: Project) -> Energies:
    head, device = heads.of_foundation(project), project.settings.finetune.device
    return energies_of(project.weights, head, device, project.settings.dataset.max_stress)


def _with_groups(frames: list[Atoms], name: str) -> list[Atoms]:
    """`frames` with ``info["group"]``: where the file says none, as it is found for a data set."""
    several = [atoms for atoms in frames if not is_isolated_atom(atoms)]
    if len(several) >= MIN_FRAMES and not any("group" in atoms.info for atoms in several):
        for atoms, group in zip(several, group_frames(several, "auto", SHARE, SHARE).groups, strict=True):
            atoms.info["group"] = f"{name}: {group}"
    return frames


def _once(predict: Callable[[Sequence[Atoms]], Predicted | None]) -> Predict:
    """`predict` for frames but isolated atoms, done once: later calls, with the same frames, give the first answer."""
    answers: list[Predicted | None] = []

    def ask(frames: Sequence[Atoms]) -> Predicted | None:
        if not answers:
            answers.append(predict([atoms for atoms in frames if not is_isolated_atom(atoms)]))
        return answers[0]

    return ask


def _generated(project: Project, source: PoolSource, retention: Sequence[Atoms]) -> Pool:
    """Structures made for the foundation's elements."""
    from retemper.models import mace

    settings = project.settings.replay
    number = (settings.number + settings.valid) * (FROM if settings.select == "farthest-point" else 2)
    log.info(f"replay: making {number} structures of the foundation's elements")
    structures = generated_pool.generate(mace.elements(project.weights), number, _energies(project), seed=settings.seed)
    return Pool(source, None, apart(structures, retention, project.settings.dataset.near_duplicate), None)
