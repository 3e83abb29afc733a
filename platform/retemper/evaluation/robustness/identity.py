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
    "level": lambda here: here.level,
    "elements": lambda here: " ".join(here.symbols),
    "temperature": lambda here: f"{here.temperature:g} K",
    "seed": lambda here: str(here.seed),
    "reference": lambda here: _frames(here.reference) if here.reference else _model(here.oracle),
    "retention": lambda here: labels_hash(here.retention),
    "oracle": lambda here: _model(here.oracle),
    "foundation": lambda here: _model(here.foundation),
    "figures": lambda here: _figures(here),
    "machine": lambda here: digest([platform.node(), platform.machine(), here.subject.backend]),
}


def identity(module: Any, context: Context, tasks: Sequence[Task]) -> dict[str, str]:
    """By part: what the metric names in ``USES``, the structures and settings of its tasks, its code."""
    own = [task for task in tasks if task.subject == context.subject]
    structures, protocol = hashlib.sha256(), hashlib.sha256()
    for task in own:
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


def difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """What differs between two identities, in words; "" where they are the same."""
    parts = [part for part in dict.fromkeys([*ours, *theirs]) if ours.get(part) != theirs.get(part)]
    return ", ".join(f"{part} ({theirs.get(part, 'unknown')}; here {ours.get(part, 'unknown')})" for part in parts)


def _is_structures(value: Any) -> bool:
    return isinstance(value, Atoms) or (isinstance(value, list) and bool(value) and isinstance(value[0], Atoms))


def _frames(frames: Sequence[Atoms]) -> str:
    total = hashlib.sha256()
    feed(total, list(frames))
    return total.hexdigest()[:16]


def _model(subject: Any) -> str:
    return "none" if subject is None else digest([subject.identity])


def _figures(here: Context) -> str:
    if here.figures is None or not here.figures.is_dir():
        return "none"
    return digest([(path.name, sha256(path)) for path in sorted(here.figures.glob("*.extxyz"))])
