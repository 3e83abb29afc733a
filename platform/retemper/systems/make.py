"""Labelled structures of a system: made by its generator, or converted by its importer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

from ase import Atoms
from ase.io import write

from retemper.config.settings import parse
from retemper.core import plugins
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.data.frames import elements, write_frames
from retemper.systems import FOLDER, System
from retemper.systems.listing import OPENERS
from retemper.systems.xtb import Tally

Report = Callable[[str], None]


def generator(name: str) -> ModuleType:
    """The module of a generator that the catalogue has found."""
    return plugins.load("systems.generate", name, "generator")


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
        group_frames = module.group(group, seed, tally)
        frames += group_frames
        report(f"{name} {number}/{len(names)}: {group}, {len(group_frames)} frames")
    report(str(tally))
    return list(module.free_atoms(elements(frames))) + frames


def convert(system: System, root: Path) -> Iterator[Atoms]:
    """The frames that the system's importer reads, one by one.

    Raises
    ------
    RetemperError
        An unknown option, a source that is not there or has no frame, or one that is not what the importer reads.
    """
    assert system.importer is not None and system.source is not None
    module = plugins.load("systems.importers", system.importer.name, "importer")
    options = parse(module.Options, system.importer.options, f"{FOLDER}/{system.name}.yaml (importer)")
    source = root / system.source
    if not source.is_file():
        raise RetemperError(f"{source} does not exist.", fix=f"put the data there, or change source in {FOLDER}/")
    frames = iter(module.frames(source, options))
    first = next(frames, None)
    if first is None:
        raise RetemperError(f"{source} has no structure for the importer {system.importer.name}.")
    return itertools.chain([first], frames)


def write_stream(path: Path, frames: Iterable[Atoms]) -> None:
    """Write extxyz frame by frame, in memory of one frame; whole or not at all."""
    with atomic_write(path) as temporary, OPENERS.get(path.suffix, open)(temporary, "wt") as file:
        for frame in frames:
            write(file, frame, format="extxyz")


def make(system: System, root: Path, out: Path, *, seed: int = 0, report: Report = print) -> Path:
    """Write the system's file (and its figures) under `out`, at the paths of its YAML; returns the file.

    `root` is the project, which a relative source belongs to.

    Raises
    ------
    RetemperError
        A system whose files are simply there.
    """
    target = out / system.files[0]
    if system.importer:
        write_stream(target, convert(system, root))
    elif system.generator:
        write_frames(target, generate(system.generator, seed=seed, report=report))
        module = generator(system.generator)
        if hasattr(module, "figures") and system.figures:
            for file, frames in module.figures(seed).items():
                write_frames(out / system.figures / file, frames)
    else:
        raise RetemperError(
            f"System {system.name} is not made by retemper: its files are used as they are.",
            expected="generator or importer in its YAML",
            fix=f"put the files there: {', '.join(system.files)}",
        )
    return target
