"""The dataset stage: from a user's labelled files to checked, de-duplicated, split and audited sets."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, require_space, sha256
from retemper.core.output import log
from retemper.core.version import __version__
from retemper.data.frame_store import Store
from retemper.data.frames import write_frames
from retemper.prepare.manifest import describe_set, reasons, table
from retemper.prepare.steps import DataSet
from retemper.records.dataset import DatasetManifest, Source

BYTES_PER_ATOM = 150  # of extxyz with forces, generously


def run(project: Project, *, out: Path | None = None) -> DatasetManifest:
    """Make the training, validation and test sets from ``settings.dataset``.

    Parameters
    ----------
    project
        Of its settings `dataset` and the foundation's name are used.
    out
        Folder for ``train``, ``valid``, ``test``, ``isolated``, ``unused`` (sound frames beyond
        ``dataset.max_train``, or set aside between sets) and ``rejected`` (``.extxyz``, the last two
        with ``info["reason"]``; an empty set is an empty file), and ``manifest.json``. Written
        whole or not at all. `None`: the project's.

    Raises
    ------
    RetemperError
        Unreadable files, missing keys, wrong units, elements unknown to the foundation, mixed
        levels of theory, more rejected frames than ``dataset.max_rejected``, too few frames or
        groups, or a leak between the sets.
    """
    settings = project.settings
    if not settings.dataset.files:
        raise RetemperError("dataset.files is empty.", expected="at least one file of labelled structures")
    out = out or project.dataset
    with Store(out.parent) as store:
        data = DataSet(project, store)
        data.read()
        units = data.check_units()
        level = data.check_kind()
        data.check_frames()
        data.pick_free_atoms()
        data.remove_duplicates()
        grouping = data.split()
        cut = data.limit_training()
        joined = data.add_rounds()
        audited, near = data.audit()
        sets = data.frames_of_sets()
        described = {name: describe_set(frames) for name, frames in sets.items()}
        fitted = [part for name, part in described.items() if name not in ("rejected", "unused")]
        manifest = DatasetManifest(
            system=settings.system,
            sets=described,
            unused=reasons(sets["unused"]),
            rejected=reasons(sets["rejected"]),
            elements=sorted({symbol for part in fitted for symbol in part.elements}),
            sources=[_source(project.root, name) for name in settings.dataset.all_files],
            settings=settings.dataset,
            software={
                "retemper": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in ("ase", "numpy", "scipy", "matscipy")},
            },
            frames_read=len(store),
            rounds=joined,
            grouping=grouping,
            subset=cut,
            audited=audited,
            nearness=near,
            level_of_theory=level,
            units=units,
            warnings=data.warnings,
        )
        require_space(out, BYTES_PER_ATOM * sum(part.atoms for part in described.values()))
        with atomic_folder(out) as folder:
            for name, frames in sets.items():
                write_frames(folder / f"{name}.extxyz", frames)
            manifest.write(folder / "manifest.json")
    log.info(table(manifest))
    return manifest


def _source(root: Path, name: str) -> Source:
    return Source(file=name, sha256=sha256(root / name), bytes=(root / name).stat().st_size)
