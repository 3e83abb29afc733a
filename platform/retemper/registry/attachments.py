"""What is kept with a version in the store beside its weights: its measures, its verdict, how it was trained."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from retemper.core.files import digest, require_sha256
from retemper.records.runs import Results
from retemper.registry import artifact, measurements
from retemper.registry.client import Registry, Version
from retemper.registry.measurements import Measured
from retemper.tracking.lineage import file_md5

FOLDER = artifact.LATER  # below the version's artifacts
TRAINING = ("mace.yaml", "effective.json", "history.csv")
ORIGIN = ("params.yaml", "dvc.lock")
FORMER_WEIGHTS = "artifacts/model.model"  # a pickle, of versions that an earlier release registered


def keep(registry: Registry, version: Version, results: Results, model: Measured) -> None:
    """Put measures, errors by frame and the training's files beside the weights; again only when they changed."""
    frames = results.project.evaluation(model.strategy) / measurements.FRAMES
    folder = results.trainings[model.strategy][model.seed].folder
    training = [folder / name for name in TRAINING if (folder / name).is_file()]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        measurements.save(model, frames, place)
        for path in training:
            shutil.copy(path, place)
        identity = digest([(path.name, file_md5(path)) for path in sorted(place.iterdir())])
        if version.tags.get("kept") != identity:
            registry.attach(version, place)
            registry.tag(version, {"kept": identity})


def add_origin(root: Path, folder: Path) -> None:
    """Copy the project's settings and the hashes of all its data, as they are when a version is made."""
    folder.mkdir(exist_ok=True)
    for name in ORIGIN:
        if (root / name).is_file():
            shutil.copy(root / name, folder)


def fetch(registry: Registry, version: Version) -> Measured | None:
    """The measures kept with a version; `None` where there are none."""
    if "kept" not in version.tags:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return measurements.read(registry.download(version, FOLDER, Path(folder)))


def weights(registry: Registry, version: Version, folder: Path) -> Path:
    """Download a version's weights into `folder`; they are refused unless their sha256 is the registered one."""
    registered = version.sha256
    place = artifact.WEIGHTS if artifact.TAG in version.tags else FORMER_WEIGHTS
    path = registry.download(version, place, folder)
    what = f"The weights of {version.name} are not the registered ones and were not opened."
    require_sha256(path, registered, what, "register it again, or restore the store from a backup")
    return path


def download(registry: Registry, version: Version, folder: Path) -> Path:
    """Download a version's artifact into `folder`; refused unless all its files are the registered ones."""
    version.sha256  # noqa: B018 (raises)
    path = registry.download(version, "", folder)
    artifact.require(path, version.tags.get(artifact.TAG), f"{version.name}")
    return path
