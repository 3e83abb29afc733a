"""What ``retemper systems`` prints. Imports nothing heavy."""

from __future__ import annotations

import gzip
import itertools
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO

import yaml

from retemper.core.errors import RetemperError
from retemper.systems import FOLDER, System, lines_for_params

OPENERS: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open}


def size(path: Path) -> tuple[int, int]:
    """Number of frames and of atoms of an (ext)xyz file, read line by line.

    Raises
    ------
    RetemperError
        A line that should hold a number of atoms does not, or the file ends in a frame.
    """
    frames = atoms = line = 0
    with OPENERS.get(path.suffix, open)(path, "rt") as file:
        for text in file:
            line += 1
            if not text.strip():
                continue
            count = int(text) if text.strip().isdigit() else -1
            read = sum(1 for _ in itertools.islice(file, count + 1)) if count >= 0 else 0
            if count < 0 or read <= count:
                raise RetemperError(
                    f"{path} is broken at line {line}, after {frames} frames.",
                    expected=f"{count + 1} lines of a frame" if count >= 0 else "a number of atoms",
                    got=f"{read} lines" if count >= 0 else text.strip()[:60],
                )
            line, frames, atoms = line + read, frames + 1, atoms + count
    return frames, atoms


def size_text(system: System, root: Path) -> str:
    """How much there is: frames and atoms of extxyz, else bytes; or that it is not there."""
    paths = [root / name for name in [*system.files, *system.test_files]]
    if not all(path.is_file() for path in paths):
        return "not there"
    if all(".xyz" in path.name or ".extxyz" in path.name for path in paths):
        frames, atoms = (sum(numbers) for numbers in zip(*map(size, paths), strict=True))
        return f"{frames} frames, {atoms} atoms"
    return f"{sum(path.stat().st_size for path in paths) / 1e6:.1f} MB"


def listing(systems: dict[str, System], root: Path) -> str:
    """A paragraph a system: what it is; level of theory, size, elements, observables, where it comes from."""
    if not systems:
        return f"no system: put a YAML into {root / FOLDER}"
    blocks = []
    for name, system in systems.items():
        facts = [system.level_of_theory, size_text(system, root), " ".join(system.elements)]
        if system.observables:
            facts.append("observables: " + ", ".join(system.observables))
        blocks.append(f"{name:12s} {system.about}\n{'':12s} {'; '.join([*facts, system.origin])}")
    return "\n".join(blocks)


def description(system: System, root: Path) -> str:
    """Everything that is known of one system, and the lines for params.yaml."""
    content: dict[str, object] = system.model_dump(exclude_defaults=True)
    content["elements"] = " ".join(system.elements)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    origin = f"python -m pipelines.system {system.name}" if system.generator or system.importer else "files as they are"
    return (
        f"{text}size: {size_text(system, root)}\nmade by: {origin}\n\n"
        f"For params.yaml:\n\n{lines_for_params(system).rstrip()}"
    )
