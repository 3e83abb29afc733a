"""Pretrain an embedded foundation: MACE's own training on some kinds of structures in ``foundations/pretraining``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mace.tools
import yaml
from mace.cli import run_train

from retemper.config import foundations
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import atomic_folder
from retemper.data.frames import is_isolated_atom, read_frames, write_frames
from retemper.finetune.mace.train import arguments, in_place_of
from retemper.finetune.plan import Flags
from retemper.models import fast_blocks

FOLDER = Path("foundations/pretraining")


def generations(root: Path) -> dict[str, Flags]:
    """What is particular to each embedded foundation: ``kinds`` of structures, and settings of MACE."""
    content: dict[str, Flags] = yaml.safe_load((root / FOLDER / "generations.yaml").read_text())
    return content


def pretrain(name: str, root: Path) -> Path:
    """Train the embedded foundation `name` to the end and return its model file; a killed training goes on.

    Structures of its kinds, isolated atoms among them, lie in ``.cache/pretrain/<name>`` as ``train.extxyz``,
    ``valid.extxyz`` and ``test.extxyz``.

    Raises
    ------
    RetemperError
        `name` is not in ``generations.yaml``, or a kind has no structures.
    """
    every = generations(root)
    if name not in every:
        raise unknown("embedded foundation", name, every)
    settings = dict(every[name])
    work = root / ".cache/pretrain" / name
    sets = of_kinds(settings.pop("kinds"), root, work / "structures")
    flags = {
        **yaml.safe_load((root / FOLDER / "mace.yaml").read_text()),
        **settings,
        "name": name,
        "work_dir": str(work),
        "train_file": str(sets["train"]),
        "valid_file": str(sets["valid"]),
    }
    train = mace.tools.train

    def with_fast_blocks(**keywords: Any) -> Any:
        with fast_blocks.fast(keywords["model"]):
            return train(**keywords)

    with in_place_of(mace.tools, "train", with_fast_blocks):
        run_train.run(arguments(flags))
    return work / f"{name}.model"


def of_kinds(kinds: list[str], root: Path, folder: Path) -> Mapping[str, Path]:
    """Files with the structures of `kinds`, and isolated atoms, by set; written once."""
    names = ("train", "valid", "test")
    if not folder.is_dir():
        with atomic_folder(folder) as out:
            for name in names:
                frames = read_frames(root / FOLDER / f"{name}.extxyz.xz")
                available = {str(atoms.info["config_type"]) for atoms in frames}
                if name == "train" and (lacking := set(kinds) - available):
                    raise RetemperError(
                        f"No structures of kind {', '.join(sorted(lacking))}.",
                        expected=f"of {', '.join(sorted(available))}",
                    )
                subset = [atoms for atoms in frames if atoms.info["config_type"] in kinds or is_isolated_atom(atoms)]
                write_frames(out / f"{name}.extxyz", subset)
    return {name: folder / f"{name}.extxyz" for name in names}


def keep(name: str, model: Path, root: Path) -> None:
    """Copy the model to ``foundations``, and where it has structures of its own, those for replay and retention."""
    shutil.copy2(model, root / f"foundations/{name}.model")
    entry = foundations.find(name, root)
    for destination, part in ((entry.pool, "train"), (entry.retention, "test")):
        path = root / str(destination)
        if path.parent != root / FOLDER:
            path.parent.mkdir(exist_ok=True)
            write_frames(path, read_frames(root / ".cache/pretrain" / name / f"structures/{part}.extxyz"))
