"""Where a result comes from: git commit, DVC hashes, package versions, machine.

``dvc.lock`` is read as plain YAML, which takes milliseconds; DVC itself is not imported.
The stage that runs is not in ``dvc.lock`` yet, so a stage names the outputs it read.
"""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from retemper.config import pretraining_data
from retemper.config.foundation_files import known_sha256
from retemper.config.foundations import find
from retemper.config.settings import Settings, load_settings
from retemper.config.strict_yaml import read_texts
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.files import digest
from retemper.core.version import __version__
from retemper.records.origin import Commit, Origin

PACKAGES = ("mace-torch", "torch", "e3nn", "ase", "numpy", "mlflow", "dvc", "symmetrix-xl")


def git_commit(root: Path) -> Commit:
    """Commit of the project and whether tracked files differ from it.

    Both are `None` outside git and before the first commit. ``dvc.lock`` does not count as a change: DVC rewrites it
    during every `dvc repro`.
    """
    commit = vcs.ask(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return Commit(commit=None, dirty=None)
    changes = vcs.ask(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return Commit(commit=commit, dirty=bool(changes))


def project_identity(root: Path) -> str | None:
    """Which project this is, the same in all its clones and on all their branches.

    ``tracking.project`` where it is set, else the first commit of the repository and the folder in it; `None`
    outside git and in shallow clones, which do not have that commit.
    """
    path = root / "params.yaml"
    project = load_settings(path).tracking.project if path.is_file() and path.stat().st_size else None
    if project:
        return project
    return _first_commit(root)


@lru_cache(maxsize=8)
def _first_commit(root: Path) -> str | None:
    if vcs.ask(root, "rev-parse", "--is-shallow-repository") != "false":
        return None
    commits = sorted((vcs.ask(root, "rev-list", "--max-parents=0", "HEAD") or "").split())
    prefix = vcs.ask(root, "rev-parse", "--show-prefix")
    return f"{commits[0][:12]}/{prefix}".rstrip("/") if commits else None


def dvc_hashes(root: Path) -> dict[str, str]:
    """Content hashes by path, of every output and dependency in ``dvc.lock``; empty without one.

    The hash of a folder is the md5 of its listing; its suffix ``.dir`` is cut off. Where a
    path is output of one stage and dependency of another, the output counts.
    """
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    content = read_texts(path)
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if not isinstance(stages, dict):
        raise RetemperError(
            f"{path} is not a DVC lock file.", expected="a mapping with `stages`", fix="git checkout dvc.lock"
        )
    hashes: dict[str, str] = {}
    for kind in ("deps", "outs"):
        for stage in stages.values():
            for entry in stage.get(kind, []):
                value = entry.get(entry.get("hash", "md5"))
                if value:
                    hashes[entry["path"]] = str(value).removesuffix(".dir")
    return hashes


def dvc_hash(hashes: dict[str, str], path: str) -> tuple[str, str] | None:
    """``(path, hash)`` of the entry that holds `path`: itself or the nearest folder above it."""
    for candidate in (PurePosixPath(path), *PurePosixPath(path).parents):
        if str(candidate) in hashes:
            return str(candidate), hashes[str(candidate)]
    return None


def file_md5(path: str | Path) -> str:
    """Hex md5 of a file's bytes: the hash under which DVC stores the file."""
    status = Path(path).stat()
    return _file_md5(str(Path(path).resolve()), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _file_md5(path: str, mtime: int, size: int) -> str:
    """`mtime` and `size` are there for the cache's key."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def versions() -> dict[str, str]:
    """Versions of retemper, Python and the packages that decide the numbers (those installed)."""
    from importlib.metadata import PackageNotFoundError, version

    by_package = {"retemper": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_package[name] = version(name)
        except PackageNotFoundError:
            continue
    return by_package


def machine() -> dict[str, str]:
    """Name, system, processor and number of cores of this machine."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


@lru_cache(maxsize=1)
def _processor() -> str:
    """Model name of the processor; the architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def origin(root: Path) -> Origin:
    """Where something is made, here and now: `git_commit`, `machine` and `versions`."""
    return Origin(git=git_commit(root), machine=machine(), versions=versions())


@dataclass(frozen=True)
class DataFile:
    """One file that a result was made from."""

    role: str  # train, valid, test, replay, replay-valid, pseudolabel, pseudolabel-valid, foundation
    use: str  # training, validation, testing, foundation
    path: str  # relative to the project root; name of the weights where they are not in the project
    md5: str  # of the file; of the catalogue entry where the weights are not in the project
    dvc_path: str | None  # entry of dvc.lock that holds the file
    dvc_md5: str | None  # its hash, without .dir


def training_data(root: Path, settings: Settings, replay_labels: str | None) -> list[DataFile]:
    """The data behind a fine-tuned model: target sets, replay sets by `replay_labels`, foundation.

    Parameters
    ----------
    replay_labels : "original", "foundation" or `None`
        Where the labels of the strategy's replay structures come from.
    """
    sets = [
        ("train", "training", "runs/dataset/train.extxyz"),
        ("valid", "validation", "runs/dataset/valid.extxyz"),
        ("test", "testing", "runs/dataset/test.extxyz"),
    ]
    if replay_labels is not None:
        role = "replay" if replay_labels == "original" else "pseudolabel"
        sets.append((role, "training", f"runs/{role}/train.extxyz"))
        sets.append((f"{role}-valid", "validation", f"runs/{role}/valid.extxyz"))
    hashes = dvc_hashes(root)
    files = [_data_file(root, hashes, *entry) for entry in sets if (root / entry[2]).is_file()]
    return [*files, foundation_file(root, settings.foundation, hashes)]


def retention_data(root: Path, settings: Settings) -> DataFile | None:
    """The held-out set of the pretraining distribution; `None` where there is none."""
    named = pretraining_data.retention(settings, find(settings.foundation, root))
    path = named[0] if named else f"runs/replay/{pretraining_data.KEPT}.extxyz"
    if not (root / path).is_file():
        return None
    return _data_file(root, dvc_hashes(root), "retention", "testing", path)


def foundation_file(root: Path, name: str, hashes: dict[str, str]) -> DataFile:
    """The foundation's weights; weights that are fetched have their sha256."""
    entry = find(name, root)
    if entry.file is not None and (root / entry.file).is_file():
        return _data_file(root, hashes, "foundation", "foundation", entry.file)
    identity = known_sha256(entry, root) or digest(entry.model_dump())
    return DataFile("foundation", "foundation", name, identity[:32], None, None)


def _data_file(root: Path, hashes: dict[str, str], role: str, use: str, path: str) -> DataFile:
    entry = dvc_hash(hashes, path)
    return DataFile(role, use, path, file_md5(root / path), *(entry or (None, None)))
