"""What is kept with a version in the store beside its weights: its measures, its verdict, how it was trained."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core.errors import RetemperError
from retemper.core.files import digest, sha256
from retemper.records.runs import Results
from retemper.registry import artifact, measurements
from retemper.registry.measurements import Measured
from retemper.tracking.lineage import file_md5
from retemper.tracking.store import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FOLDER = artifact.LATER  # below the version's artifacts
TRAINING = ("mace.yaml", "effective.json", "history.csv")
ORIGIN = ("params.yaml", "dvc.lock")
FORMER_WEIGHTS = "artifacts/model.model"  # a pickle, of versions that an earlier release registered


def model_id(version: ModelVersion) -> str:
    """Logged model behind a version; MLflow leaves the version's own field empty.

    Raises
    ------
    RetemperError
        The version was made by hand in MLflow.
    """
    if not str(version.source).startswith("models:/"):
        raise RetemperError(
            f"{version.name}/{version.version} was not registered by retemper.",
            expected="a logged model with its weights",
            got=f"source {version.source}",
            fix="use another version (retemper models), or delete it in MLflow",
        )
    return str(version.source).removeprefix("models:/")


def keep(client: MlflowClient, version: ModelVersion, results: Results, measured: Measured) -> None:
    """Put measures, errors by frame and the training's files beside the weights; again only when they changed."""
    frames = results.root / "runs/evaluate" / measured.strategy / measurements.FRAMES
    folder = results.trainings[measured.strategy][measured.seed].folder
    training = [folder / name for name in TRAINING if (folder / name).is_file()]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        measurements.save(measured, frames, place)
        for path in training:
            shutil.copy(path, place)
        identity = digest([(path.name, file_md5(path)) for path in sorted(place.iterdir())])
        if version.tags.get("kept") != identity:
            client.log_model_artifacts(model_id(version), str(place), FOLDER)
            client.set_model_version_tag(version.name, version.version, "kept", identity)


def add_origin(root: Path, folder: Path) -> None:
    """Copy the project's settings and the hashes of all its data, as they are when a version is made."""
    folder.mkdir(exist_ok=True)
    for name in ORIGIN:
        if (root / name).is_file():
            shutil.copy(root / name, folder)


def fetch(client: MlflowClient, root: Path | None, version: ModelVersion) -> Measured | None:
    """The measures kept with a version; `None` where there are none."""
    if "kept" not in version.tags:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return measurements.read(_download(client, root, version, FOLDER, Path(folder)))


def weights(client: MlflowClient, root: Path | None, version: ModelVersion, folder: Path) -> Path:
    """Download a version's weights into `folder`; they are refused unless their sha256 is the registered one."""
    registered = registered_sha256(version)
    place = artifact.WEIGHTS if artifact.TAG in version.tags else FORMER_WEIGHTS
    path = _download(client, root, version, place, folder)
    got = sha256(path)
    if got != registered:
        raise RetemperError(
            f"The weights of {version.name}/{version.version} are not the registered ones and were not opened.",
            expected=f"sha256 {registered}",
            got=f"sha256 {got}",
            fix="register it again, or restore the store from a backup",
        )
    return path


def registered_sha256(version: ModelVersion) -> str:
    """The sha256 of a version's weights as the registry has it; it names files, so that nothing else will do."""
    found = str(version.tags.get("sha256", ""))
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise RetemperError(
            f"{version.name}/{version.version} has no sha256 of its weights, which were not opened.",
            expected="the tag sha256 as registration writes it, 64 hexadecimal digits",
            got=repr(found[:100]),
            fix="register it again (retemper sync)",
        )
    return found


def whole(client: MlflowClient, root: Path | None, version: ModelVersion, folder: Path) -> Path:
    """Download a version's artifact into `folder`; refused unless all its files are the registered ones."""
    registered_sha256(version)
    path = _download(client, root, version, "", folder)
    artifact.require(path, version.tags.get(artifact.TAG), f"{version.name}/{version.version}")
    return path


def training_file(client: MlflowClient, root: Path | None, version: ModelVersion, name: str, folder: Path) -> Path:
    """Download one of the training's files."""
    return _download(client, root, version, f"{FOLDER}/{name}", folder)


def _download(client: MlflowClient, root: Path | None, version: ModelVersion, path: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    place = client.get_logged_model(model_id(version)).artifact_location
    uri = f"{place}/{path}".rstrip("/")
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=tracking_uri(root)))
