"""Labelled structures of a system: made by its generator, or converted by its importer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from ase import Atoms

from retemper.errors import RetemperError
from retemper.frames import elements, write_frames
from retemper.systems import System
from retemper.xtb import Tally

Report = Callable[[str], None]


def generator(name: str) -> ModuleType:
    """The module of a generator that the catalogue has found."""
    return importlib.import_module(f"retemper.systems.generate.{name}")


def generate(name: str, *, seed: int = 0, report: Report = print) -> list[Atoms]:
    """All frames of the generator `name`, free atoms first.

    Parameters
    ----------
    name
        A file of `retemper.systems.generate`.
    seed
        Changes every group.
    report
        Receives a line of progress a group, and the count of what was left out at the end.
    """
    module = generator(name)
    tally = Tally()
    frames: list[Atoms] = []
    names = module.groups()
    for number, group in enumerate(names, start=1):
        found = module.group(group, seed, tally)
        frames += found
        report(f"{name} {number}/{len(names)}: {group}, {len(found)} frames")
    report(str(tally))
    return list(module.free_atoms(elements(frames))) + frames


def make(system: System, root: Path, out: Path, *, seed: int = 0, report: Report = print) -> Path:
    """Write the system's file (and its figures) under `out`, at the paths of its YAML; returns the file.

    `root` is the project, which a relative source belongs to.

    Raises
    ------
    RetemperError
        A system whose files are simply there.
    """
    target = out / system.files[0]
    if not system.generator:
        raise RetemperError(
            f"System {system.name} has no generator.",
            expected="generator or importer in its YAML",
            got=system.origin,
        )
    write_frames(target, generate(system.generator, seed=seed, report=report))
    module = generator(system.generator)
    if hasattr(module, "figures") and system.figures:
        for file, frames in module.figures(seed).items():
            write_frames(out / system.figures / file, frames)
    return target
