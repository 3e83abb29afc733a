"""Registered versions by name: ``name/version``, ``name@alias`` or a ``models:/`` address."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core import weight_files
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import atomic_write, project_root
from retemper.registry import artifact, attachments
from retemper.registry.aliases import CHAMPION, systems, versions
from retemper.tracking.store import DATABASE, connect, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


CANDIDATE = "candidate"  # alias of the version to look at first


def weights(name_or_uri: str, folder: Path, root: Path) -> Path:
    """Model file of a registered model, named as for `load`, below `folder` under its sha256, which is checked."""
    with store_errors(root):
        client = existing_store(root)
        version = resolve(client, name_or_uri)
        sha, safe = attachments.registered_sha256(version), artifact.TAG in version.tags
        place = folder / f"{sha[:16]}{weight_files.SUFFIX if safe else '.model'}"
        with tempfile.TemporaryDirectory() as temporary, atomic_write(place) as copy:
            shutil.copyfile(attachments.weights(client, root, version, Path(temporary)), copy)
    return place


def existing_store(root: Path | None) -> MlflowClient:
    """Client of a store that is there; nothing is created for a question."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not ((root or project_root()) / DATABASE).is_file():
        raise RetemperError(
            f"No models are registered: there is no {DATABASE}.", fix="dvc repro, or set MLFLOW_TRACKING_URI"
        )
    return connect(root)


def resolve(client: MlflowClient, name_or_uri: str) -> ModelVersion:
    """The version that a name means."""
    name = name_or_uri.removeprefix("models:/")
    model, _, alias = name.partition("@")
    model, _, number = model.partition("/")
    if not number and alias.isdecimal():  # nacl@4: MLflow itself takes such an alias for nothing else
        alias, number = "", alias
    found = versions(client, model)
    if not found:
        raise unknown("registered model", model, systems(client))
    if number:
        chosen = next((version for version in found if str(version.version) == number), None)
        if chosen is None:
            raise unknown(f"version of {model}", number, [str(version.version) for version in found])
        return chosen
    known = {one: str(held) for one, held in dict(client.get_registered_model(model).aliases).items()}
    if alias and alias not in known:
        raise unknown(f"alias of {model}", alias, known)
    held = known.get(alias) if alias else known.get(CHAMPION, known.get(CANDIDATE))
    return next((version for version in found if str(version.version) == held), found[0])
