"""What decides a metric beside the model: two models are compared only where it is the same."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ase import Atoms

from retemper.core.files import digest, sha256
from retemper.data.frames import labels_hash
from retemper.evaluation.robustness.context import Context
from retemper.simulation.engine import Task, feed
from retemper.simulation.sources import fingerprint

PARTS: dict[str, Callable[[Context], str]] = {  # what a metric may name in USES
    "level": lambda context: context.level,
    "elements": lambda context: " ".join(context.symbols),
    "temperature": lambda context: f"{context.temperature:g} K",
    "seed": lambda context: str(context.seed),
    "reference": lambda context: _frames(context.reference) if context.reference else _model(context.oracle),
    "retention": lambda context: labels_hash(context.retention),
    "oracle": lambda context: _model(context.oracle),
    "foundation": lambda context: _model(context.foundation),
    "figures": lambda context: _figures(context),
    "machine": lambda context: digest([platform.node(), platform.machine(), context.subject.backend]),
}


def identity(module: Any, context: Context, tasks: Sequence[Task]) -> dict[str, str]:
    """By part: what the metric names in ``USES``, the structures and settings of its tasks, its code."""
    model_tasks = [task for task in tasks if task.subject == context.subject]
    structures, protocol = hashlib.sha256(), hashlib.sha256()
    for task in model_tasks:
        protocol.update(task.function.__qualname__.encode())
        for key, value in sorted(task.arguments.items()):
            protocol.update(f"{key}:".encode())
            feed(structures if _is_structures(value) else protocol, value)
    return {
        **{part: PARTS[part](context) for part in module.USES},
        "structures": structures.hexdigest()[:16],
        "protocol": protocol.hexdigest()[:16],
        "code": fingerprint(module.__name__),
    }


def difference(current: Mapping[str, str], reference: Mapping[str, str]) -> str:
    """What differs between two identities, in words; "" where they are the same."""
    parts = [part for part in dict.fromkeys([*current, *reference]) if current.get(part) != reference.get(part)]
    return ", ".join(
        f"{part} ({reference.get(part, 'unknown')}; here {current.get(part, 'unknown')})" for part in parts
    )


def _is_structures(value: Any) -> bool:
    return isinstance(value, Atoms) or (isinstance(value, list) and bool(value) and isinstance(value[0], Atoms))


def _frames(frames: Sequence[Atoms]) -> str:
    total = hashlib.sha256()
    feed(total, list(frames))
    return total.hexdigest()[:16]


def _model(subject: Any) -> str:
    return "none" if subject is None else digest([subject.identity])


def _figures(context: Context) -> str:
    if context.figures is None or not context.figures.is_dir():
        return "none"
    return digest([(path.name, sha256(path)) for path in sorted(context.figures.glob("*.extxyz"))])
