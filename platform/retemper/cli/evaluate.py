"""``retemper evaluate`` and ``retemper metrics``."""

from __future__ import annotations

import argparse
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from retemper.config import foundations
from retemper.config.settings import Settings, load_settings
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import project_root, read_json
from retemper.data.frames import read_frames
from retemper.evaluation.robustness import metrics, stage, suite
from retemper.evaluation.robustness.context import Context
from retemper.models import evaluators
from retemper.models.calculator import PREFIX
from retemper.models.evaluators import Subject

MODELS = Path(".cache/models")  # weights of registered models


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


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the command line names; prints the metrics and where the rest lies."""
    names = metrics.chosen(options.metrics)
    root, settings = _project()
    here = _context(options, root, settings)
    folder = Path(options.out or Path("runs/robustness") / re.sub(r"[^A-Za-z0-9_.-]+", "-", options.model).strip("-."))
    content = suite.evaluate(here, names, folder, workers=options.workers)
    print(suite.table(content))
    print(f"tables, plots and failing structures: {folder}/")
    return content


def _project() -> tuple[Path | None, Settings | None]:
    """The project around the working directory, if there is one."""
    try:
        root = project_root()
    except RetemperError:
        return None, None
    return root, load_settings(root / "params.yaml")


def _subject(options: argparse.Namespace, root: Path | None) -> Subject:
    """What the first argument means: a file, strategy, foundation, registered model, or a name for a calculator."""
    if options.calculator:
        spec = options.calculator if options.calculator.startswith(PREFIX) else PREFIX + options.calculator
        return evaluators.describe(spec, name=options.model)
    model: str = options.model
    head = options.head
    if not Path(model).is_file() and not model.startswith(PREFIX) and root is not None:
        trained = root / "runs/finetune" / model / "summary.json"
        if trained.is_file():
            first = min(read_json(trained)["seeds"], key=int)
            path = trained.parent / f"seed-{first}" / weight_files.NAME
        elif model in foundations.catalogue(root):
            entry = foundations.find(model, root)
            path, head = foundations.weights(entry, root), head or entry.head
        elif "@" in model or model.startswith("models:/"):
            from retemper.registry.versions import weights

            path = weights(model, root / MODELS, root)
        else:
            raise RetemperError(
                f"{model} is no model that is known here.",
                expected="a model file, a trained strategy, a foundation, a registered model (nacl@candidate), "
                "or any name with --calculator",
                fix="retemper foundations lists the foundations; runs/finetune/ holds what was trained",
            )
        return evaluators.describe(str(path), name=model, head=head, device=options.device)
    if not model.startswith(PREFIX):
        foundations.admitted(model, options.sha256, options.trust_pickle, root)
    return evaluators.describe(model, name=model, head=head, device=options.device)


def _context(options: argparse.Namespace, root: Path | None, settings: Settings | None) -> Context:
    """The project's context where there is one, with what the command line says instead."""
    subject = _subject(options, root)
    base = Context(subject, ())
    if root is not None and settings is not None:
        if (root / "runs/dataset/test.extxyz").is_file():
            base = stage.context(settings, root)
        else:
            entry = foundations.find(settings.foundation, root)
            retention = stage.molecules(read_frames(root / entry.retention)) if entry.retention else []
            base = Context(subject, (), foundation=stage.foundation_subject(settings, root), retention=retention)
    changes: dict[str, Any] = {"subject": subject, "level": options.level, "other_heads": stage.heads_of(subject)}
    changes |= {"temperature": options.temperature, "seed": options.seed}
    if options.structures:
        frames = stage.molecules(read_frames(options.structures))
        changes |= {"frames": frames, "reference": frames, "elements": stage.elements_of(frames), "free_atoms": {}}
    if options.reference:
        changes["reference"] = read_frames(options.reference)
    if options.retention:
        changes["retention"] = stage.molecules(read_frames(options.retention))
    if options.foundation:
        named = foundations.catalogue(root).get(options.foundation) if root is not None else None
        path = (
            foundations.weights(named, root)
            if named
            else foundations.admitted(options.foundation, None, options.trust_pickle, root)
        )
        changes["foundation"] = evaluators.describe(str(path), name="foundation", head=named.head if named else None)
    if options.oracle:
        level = stage.oracle_level(options.oracle, options.oracle_level)
        changes |= {"oracle": stage.oracle_subject(options.oracle), "oracle_level": level}
    if options.figures:
        changes["figures"] = Path(options.figures)
    if options.elements:
        changes["elements"] = stage.numbers(options.elements)
    here = replace(base, **changes)
    if not here.elements:
        known_elements = subject.known()
        if known_elements is None:
            raise RetemperError("Which elements are to be tested?", fix="give --elements, or --structures")
        here = replace(here, elements=known_elements)
    known_elements = subject.known()
    if known_elements is not None and not set(here.elements) <= set(known_elements):
        from ase.data import chemical_symbols

        lacking = [chemical_symbols[z] for z in here.elements if z not in known_elements]
        raise RetemperError(
            f"{subject.name} lacks elements that are to be tested: {', '.join(lacking)}.",
            expected=" ".join(chemical_symbols[z] for z in known_elements),
            fix="give --elements that it knows, or another model",
        )
    return here
