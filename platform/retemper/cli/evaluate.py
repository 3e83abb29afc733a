"""``retemper evaluate`` and ``retemper metrics``."""

from __future__ import annotations

import argparse
import re
import textwrap
from dataclasses import replace
from pathlib import Path

from retemper.config import foundation_files, foundations
from retemper.config.foundations import Foundation
from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import project_root
from retemper.data.frames import read_frames
from retemper.evaluation.robustness import metrics, stage, suite
from retemper.evaluation.robustness.context import Context
from retemper.models import evaluators
from retemper.models.calculator import PREFIX
from retemper.models.evaluators import Subject
from retemper.records.robustness import ModelRobustness
from retemper.records.training import TrainingSummary


def listing() -> str:
    """All metrics in words."""
    blocks = []
    for name in metrics.names():
        info = metrics.load(name).INFO
        unit = f" ({info.unit})" if info.unit else ""
        lines = [
            f"{name}{unit}, {info.direction} is better: good {info.good:g}, bad {info.bad:g}",
            *textwrap.wrap(info.title, 110, initial_indent="    ", subsequent_indent="    "),
            *textwrap.wrap(f"cost: {info.cost}", 110, initial_indent="    ", subsequent_indent="    "),
            *textwrap.wrap(f"from: {info.reference}", 110, initial_indent="    ", subsequent_indent="    "),
        ]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def run(options: argparse.Namespace) -> ModelRobustness:
    """Measure what the command line names; prints the metrics and where the rest lies."""
    names = metrics.resolve(options.metrics)
    project = _project()
    context = _context(options, project)
    folder = Path(options.out or Path("runs/robustness") / re.sub(r"[^A-Za-z0-9_.-]+", "-", options.model).strip("-."))
    robustness = suite.evaluate(context, names, folder, workers=options.workers)
    print(suite.table(robustness))
    print(f"tables, plots and failing structures: {folder}/")
    return robustness


def _project() -> Project | None:
    """The project around the working directory, if there is one."""
    try:
        root = project_root()
    except RetemperError:
        return None
    return Project(root, load_settings(root / "params.yaml"))


def _subject(options: argparse.Namespace, project: Project | None) -> Subject:
    """What the first argument means: a file, strategy, foundation, registered model, or a name for a calculator."""
    if options.calculator:
        spec = options.calculator if options.calculator.startswith(PREFIX) else PREFIX + options.calculator
        return evaluators.describe(spec, name=options.model)
    model: str = options.model
    head = options.head
    if not Path(model).is_file() and not model.startswith(PREFIX) and project is not None:
        root = project.root
        if project.summary(model).is_file():
            path = project.model(model, min(TrainingSummary.read(project.summary(model)).seeds))
        elif model in foundations.catalogue(root):
            entry = _entry(model, project)
            path, head = foundation_files.weights(entry, root), head or entry.head
        elif "@" in model or model.startswith("models:/"):
            from retemper.registry.versions import weights

            path = weights(model, project.cache("models"), root)
        else:
            raise RetemperError(
                f"{model} is no model that is known here.",
                expected="a model file, a trained strategy, a foundation, a registered model (nacl@candidate), "
                "or any name with --calculator",
                fix="retemper foundations lists the foundations; runs/finetune/ holds what was trained",
            )
        return evaluators.describe(str(path), name=model, head=head, device=options.device)
    if not model.startswith(PREFIX):
        weight_files.require(model, options.sha256)
    return evaluators.describe(model, name=model, head=head, device=options.device)


def _context(options: argparse.Namespace, project: Project | None) -> Context:
    """The project's context where there is one, with what the command line says instead."""
    subject = _subject(options, project)
    context = replace(
        _project_context(subject, project),
        subject=subject,
        level=options.level,
        other_heads=stage.heads_of(subject),
        temperature=options.temperature,
        seed=options.seed,
    )
    if options.structures:
        frames = stage.molecules(read_frames(options.structures))
        elements = stage.elements_of(frames)
        context = replace(context, frames=frames, reference=frames, elements=elements, free_atoms={})
    if options.reference:
        context = replace(context, reference=read_frames(options.reference))
    if options.retention:
        context = replace(context, retention=stage.molecules(read_frames(options.retention)))
    if options.foundation:
        context = replace(context, foundation=_foundation(options, project))
    if options.oracle:
        level = stage.oracle_level(options.oracle, options.oracle_level)
        context = replace(context, oracle=stage.oracle_subject(options.oracle), oracle_level=level)
    if options.figures:
        context = replace(context, figures=Path(options.figures))
    if options.elements:
        context = replace(context, elements=stage.numbers(options.elements))
    return _with_known_elements(context)


def _project_context(subject: Subject, project: Project | None) -> Context:
    """What the project's models are measured on, as far as it is there."""
    if project is None:
        return Context(subject, ())
    if project.structures("test").is_file():
        return stage.context(project)
    source = project.foundation.retention
    retention = stage.molecules(read_frames(project.root / source)) if source else []
    return Context(subject, (), foundation=stage.foundation_subject(project), retention=retention)


def _foundation(options: argparse.Namespace, project: Project | None) -> Subject:
    """What ``--foundation`` means: a name of the catalogue, or a file."""
    root = project.root if project else None
    entry = (
        _entry(options.foundation, project) if project and options.foundation in foundations.catalogue(root) else None
    )
    if entry is None:
        return evaluators.describe(str(weight_files.require(options.foundation)), name="foundation")
    return evaluators.describe(str(foundation_files.weights(entry, root)), name="foundation", head=entry.head)


def _entry(name: str, project: Project) -> Foundation:
    """The catalogue's entry; of the project's own foundation with the head that its settings choose."""
    return project.foundation if name == project.settings.foundation else foundations.find(name, project.root)


def _with_known_elements(context: Context) -> Context:
    """`context` with elements to test: all that the model knows, where none are given; it must know those given."""
    subject = context.subject
    known_elements = subject.known()
    if not context.elements:
        if known_elements is None:
            raise RetemperError("Which elements are to be tested?", fix="give --elements, or --structures")
        return replace(context, elements=known_elements)
    if known_elements is not None and not set(context.elements) <= set(known_elements):
        from ase.data import chemical_symbols

        lacking = [chemical_symbols[z] for z in context.elements if z not in known_elements]
        raise RetemperError(
            f"{subject.name} lacks elements that are to be tested: {', '.join(lacking)}.",
            expected=" ".join(chemical_symbols[z] for z in known_elements),
            fix="give --elements that it knows, or another model",
        )
    return context
