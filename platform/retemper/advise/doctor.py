"""What would fail, before it does: environment, data, E0s, replay, gates, tracking, by the code that will use them.

The stages that cost little (dataset, e0s, replay) are rehearsed in a temporary folder: what they would refuse or warn
of is said here, and nothing of the project changes.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from retemper.config import metric_names, strategies
from retemper.config.project import Project
from retemper.core import processes, vcs
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.records.dataset import DatasetManifest

Status = Literal["ok", "warning", "fails"]
ROOM = 2e9  # bytes of disk below which a small campaign may not end


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    status: Status
    text: str


@dataclass(frozen=True)
class Rehearsal(Project):
    """The project with another folder in the place of ``runs``."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder


def examine(root: Path) -> Iterator[Finding]:
    """Look at everything, the quick things first; what cannot be looked at for an earlier failure is left out."""
    yield from _asked("environment", _environment)
    yield from _asked("machine", lambda: _machine(root))
    read: list[Project] = []
    yield from _asked("settings", lambda: _settings(root, read))
    if not read:
        return
    project = read[0]
    for subject, check in (("history", _history), ("tracking", _tracking), ("oracle", _oracle)):
        yield from _asked(subject, lambda check=check: check(project))  # type: ignore[misc]
    weights = list(_asked("foundation", lambda: _foundation(project)))
    yield from weights
    if all(finding.status != "fails" for finding in weights):
        with tempfile.TemporaryDirectory() as folder:
            yield from _rehearsed(Rehearsal(project.root, project.settings, Path(folder)))


def _asked(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of `check`; what it raises is one."""
    try:
        yield from check()
    except RetemperError as error:
        yield Finding(subject, "fails", str(error))


# ------------------------------------------------------------------ what is quick


def _environment() -> Iterator[Finding]:
    wrong = []
    for text in importlib.metadata.requires("retemper") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed (wanted: {requirement})")
            continue
        if not requirement.specifier.contains(version.partition("+")[0], prereleases=True):
            wrong.append(f"{requirement.name} is {version} (wanted: {requirement.specifier})")
    if wrong:
        yield Finding("environment", "fails", "; ".join(wrong) + "\n  to fix:   pip install -c constraints.txt -e .")
    else:
        torch, mace = (importlib.metadata.version(name) for name in ("torch", "mace-torch"))
        yield Finding("environment", "ok", f"torch {torch}, mace-torch {mace}, every requirement met")


def _machine(root: Path) -> Iterator[Finding]:
    free, memory = shutil.disk_usage(root).free, psutil.virtual_memory().available
    text = f"{processes.cores()} cores, {memory / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB of disk free"
    yield Finding("machine", "ok" if free > ROOM else "warning", text)


def _settings(root: Path, read: list[Project]) -> Iterator[Finding]:
    project = Project.here(root)
    settings = project.settings
    for name in settings.strategies:
        strategies.load(name, root, settings.finetune.overrides)
    read.append(project)
    seeds = len(settings.seeds)
    yield Finding("settings", "ok", f"{settings.system}: {len(settings.strategies)} strategies, {seeds} seed(s)")
    if seeds < 2:
        yield Finding("settings", "warning", "one seed: the spread between trainings is not measured (seeds: [1, 2])")
    if settings.finetune.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            yield Finding("machine", "fails", "finetune.device is cuda, and torch sees no GPU: set it to cpu")
    if not settings.promotion.gates:
        yield Finding("gates", "warning", "promotion.gates is empty: no model will become champion (docs/registry.md)")
    measured = set(settings.robustness.metrics)
    for gate in settings.promotion.gates:
        part, _, metric = gate.metric.partition(".")
        if part == metric_names.ROBUSTNESS and measured != {"all"} and metric not in measured:
            yield Finding(
                "gates",
                "fails",
                f"a gate on {gate.metric}, which robustness.metrics does not have: nothing can pass it",
            )


def _history(project: Project) -> Iterator[Finding]:
    commit = vcs.git(project.root, "rev-parse", "HEAD").strip()
    if not (project.root / ".dvc").is_dir():
        yield Finding("history", "fails", "DVC is not set up here: dvc init")
        return
    yield Finding("history", "ok", f"git commit {commit[:10]}, DVC")


def _tracking(project: Project) -> Iterator[Finding]:
    from retemper.tracking import store

    address = os.environ.get("MLFLOW_TRACKING_URI")
    if address is None and not (project.root / store.DATABASE).exists():
        yield Finding("tracking", "ok", f"MLflow will begin {store.DATABASE} here")
        return
    with store.store_errors(project.root):
        store.connect(project.root)
    yield Finding("tracking", "ok", f"MLflow answers: {address or store.DATABASE}")


def _oracle(project: Project) -> Iterator[Finding]:
    from retemper.models import calculator

    source = project.settings.robustness.oracle
    if source is not None:
        calculator.create(source.removeprefix(calculator.PREFIX))
        yield Finding("oracle", "ok", f"{source} can be made")


def _foundation(project: Project) -> Iterator[Finding]:
    from retemper.models import heads, mace

    weights = project.weights
    head, elements = heads.of_foundation(project), mace.elements(weights)
    text = f"{project.foundation.name}, head {head}, {len(elements)} elements, {weights.stat().st_size / 1e6:.1f} MB"
    yield Finding("foundation", "ok", text)


# ------------------------------------------------------------------ stages that cost little


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Within the block stages say nothing; what they warn of is collected."""
    heard: list[str] = []

    class Warnings(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                heard.append(record.getMessage().removeprefix("Warning: ").removeprefix("replay: warning: "))

    handlers, listener = list(log.handlers), Warnings()
    log.handlers[:] = [listener]
    try:
        yield heard
    finally:
        log.handlers[:] = handlers


def _rehearsed(project: Rehearsal) -> Iterator[Finding]:
    for subject, stage in (("data", _data), ("E0s", _e0s), ("replay", _replay)):
        with _listening() as warnings:
            findings = list(_asked(subject, lambda stage=stage: stage(project)))  # type: ignore[misc]
        yield from findings
        yield from (Finding(subject, "warning", text) for text in warnings)
        if any(finding.status == "fails" for finding in findings):
            return


def _data(project: Rehearsal) -> Iterator[Finding]:
    from retemper.prepare import dataset

    manifest = dataset.run(project)
    sizes = ", ".join(f"{part.frames} {name}" for name, part in manifest.sets.items() if part.frames)
    yield Finding("data", "ok", f"{sizes}; elements {' '.join(manifest.elements)}, {_rule(manifest)}")
    yield from (Finding("data", "warning", text) for text in manifest.warnings)
    groups = manifest.sets["test"].groups
    if groups < FEWEST_GROUPS:
        text = f"{groups} group(s) of test structures: below {FEWEST_GROUPS} nothing is told apart (dataset.test)"
        gates = [gate for gate in project.settings.promotion.gates if metric_names.set_of(gate.metric) == "target"]
        if any(gate.relative_to == "foundation" for gate in gates):
            text += ", and the gate that compares with the foundation cannot be passed"
        if any(gate.relative_to is None and gate.by == "bound" for gate in gates):
            text += "; gates with max or min need `by: value`, for the interval is as wide as can be"
        yield Finding("data", "warning", text)


def _rule(manifest: DatasetManifest) -> str:
    return f"grouped by {manifest.grouping.rule} ({manifest.grouping.groups} groups)"


def _e0s(project: Rehearsal) -> Iterator[Finding]:
    from retemper.prepare import e0s

    result = e0s.run(project)
    text = f"{result.method}; with them the foundation misses {result.error_per_atom.rmse:.1f} meV/atom of the energies"
    yield Finding("E0s", "ok", text)


def _replay(project: Rehearsal) -> Iterator[Finding]:
    from retemper.finetune import planning
    from retemper.models import heads
    from retemper.prepare import replay

    manifest = replay.run(project)
    pools = ", ".join(f"{pool.train} structures of {pool.name}" for pool in manifest.pools)
    yield Finding("replay", "ok", f"{pools}; labels: {manifest.labels}")
    if manifest.retention is None:
        yield Finding("replay", "warning", "what is forgotten will not be measured (evaluate.retention)")
    kept = heads.kept_alive(project)
    for name in project.settings.strategies:
        strategy = strategies.load(name, project.root, project.settings.finetune.overrides)
        planning.require_labels_of(strategy, kept)
        if strategy.replay is not None and strategy.replay.labels == "original":
            planning.require_original(name, manifest)
