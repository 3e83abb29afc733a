"""The model registry that a project uses, as the little of MLflow that registered models need, typed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core.errors import RetemperError, unknown
from retemper.core.files import project_root
from retemper.records.trained_model import TrainedModel
from retemper.registry import artifact
from retemper.tracking import lock
from retemper.tracking.store import DATABASE, connect, store_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    system: str  # registered model
    number: str
    tags: Mapping[str, str]
    description: str
    source: str  # logged model behind it
    run: str  # its training run

    @classmethod
    def of(cls, version: ModelVersion) -> Version:
        """From MLflow's."""
        tags = {str(tag): str(text) for tag, text in version.tags.items()}
        details = str(version.description or ""), str(version.source), str(version.run_id)
        return cls(str(version.name), str(version.version), tags, *details)

    @property
    def name(self) -> str:
        """As users give it: nacl/4."""
        return f"{self.system}/{self.number}"

    @property
    def model(self) -> TrainedModel:
        """Which trained model it is; one that was made by hand has no sha256."""
        seed = self.tags.get("seed", "")
        number = int(seed) if seed.isdecimal() else -1
        return TrainedModel(self.tags.get("sha256", ""), self.tags.get("strategy", ""), number)

    @property
    def model_id(self) -> str:
        """Logged model behind it; MLflow leaves the version's own field empty. Made by hand it has none: an error."""
        if not self.source.startswith("models:/"):
            raise RetemperError(
                f"{self.name} was not registered by retemper.",
                expected="a logged model with its weights",
                got=f"source {self.source}",
                fix="use another version (retemper models), or delete it in MLflow",
            )
        return self.source.removeprefix("models:/")

    @property
    def sha256(self) -> str:
        """Of its weights, as the registry has it; it names files, so that nothing else will do."""
        text = self.tags.get("sha256", "")
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise RetemperError(
                f"{self.name} has no sha256 of its weights, which were not opened.",
                expected="the tag sha256 as registration writes it, 64 hexadecimal digits",
                got=repr(text[:100]),
                fix="register it again (retemper sync)",
            )
        return text


@dataclass(frozen=True)
class Entry:
    """A registered model's tags, the versions that its aliases point to, and its description."""

    tags: dict[str, str]
    aliases: dict[str, str]
    description: str


@dataclass(frozen=True)
class Registry:
    """Registered models in the store of the project at `root`."""

    client: MlflowClient
    root: Path | None

    def systems(self) -> list[str]:
        """Names of all registered models, without those that stand for locks."""
        models = self.client.search_registered_models()
        return [model.name for model in models if not model.name.startswith(lock.LOCK_MODEL)]

    def entry(self, system: str) -> Entry:
        """A registered model; one that is not there is a `RetemperError`."""
        from mlflow.exceptions import MlflowException

        try:
            model = self.client.get_registered_model(system)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise unknown("registered model", system, self.systems()) from None
        aliases = {alias: str(number) for alias, number in dict(model.aliases).items()}
        return Entry(dict(model.tags), aliases, model.description or "")

    def versions(self, system: str | None = None) -> list[Version]:
        """All versions of a registered model, or of all of them, newest first."""
        versions = self.client.search_model_versions(f"name = '{system}'" if system else None, max_results=10000)
        return sorted(map(Version.of, versions), key=lambda version: -int(version.number))

    def set_tag(self, system: str, tag: str, text: str) -> None:
        """Set a tag of a registered model."""
        self.client.set_registered_model_tag(system, tag, text)

    def point(self, system: str, alias: str, number: str | None) -> None:
        """Set an alias, or delete it; nothing is recorded."""
        if number is None:
            self.client.delete_registered_model_alias(system, alias)
        else:
            self.client.set_registered_model_alias(system, alias, number)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Set the tags of a version that differ."""
        for tag, text in tags.items():
            if version.tags.get(tag) != text:
                self.client.set_model_version_tag(version.system, version.number, tag, text)

    def untag(self, version: Version, tag: str) -> None:
        """Take a tag away."""
        self.client.delete_model_version_tag(version.system, version.number, tag)

    def describe_model(self, system: str, text: str) -> None:
        """Set a registered model's description, in Markdown."""
        self.client.update_registered_model(system, text)

    def describe(self, version: Version, text: str) -> None:
        """Set a version's description, in Markdown."""
        self.client.update_model_version(version.system, version.number, text)

    def attach(self, version: Version, folder: Path) -> None:
        """Put the files of a folder beside the version's weights."""
        self.client.log_model_artifacts(version.model_id, str(folder), artifact.LATER)

    def download(self, version: Version, path: str, folder: Path) -> Path:
        """Fetch a file or folder of the version's artifact."""
        from mlflow.artifacts import download_artifacts

        place = self.client.get_logged_model(version.model_id).artifact_location
        uri = f"{place}/{path}".rstrip("/")
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=tracking_uri(self.root)))

    def locked(self, system: str) -> AbstractContextManager[None]:
        """Hold the lock of a registered model (`retemper.tracking.lock`)."""
        return lock.locked(self.client, self.root or project_root(), system)


@contextlib.contextmanager
def open_registry(root: Path | None, *, existing: bool = False) -> Iterator[Registry]:
    """The registry of a project (`None`: the one around the working directory); its failures are `StoreError`.

    Parameters
    ----------
    existing
        Nothing is created for a question: without a store it is a `RetemperError`.
    """
    with store_errors(root):
        embedded = existing and not os.environ.get("MLFLOW_TRACKING_URI")
        if embedded and not ((root or project_root()) / DATABASE).is_file():
            raise RetemperError(
                f"No models are registered: there is no {DATABASE}.", fix="dvc repro, or set MLFLOW_TRACKING_URI"
            )
        yield Registry(connect(root), root)
