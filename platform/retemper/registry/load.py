"""A registered model by its name: as version, as ASE calculator, as torch-sim model."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper.core import processes, weight_files
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import atomic_write, project_root
from retemper.registry import artifact, attachments
from retemper.registry.aliases import CHAMPION, systems, versions
from retemper.tracking.store import DATABASE, connect, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE = "candidate"  # alias of the version to look at first
TARGETS = ("ase", "torch-sim")


def load(
    name_or_uri: str,
    *,
    to: str = "ase",
    device: str | None = None,
    dtype: str = "float64",
    root: str | Path | None = None,
) -> Any:
    """A registered model, ready to use.

    Parameters
    ----------
    name_or_uri : str
        ``nacl`` (the champion, else the candidate, else the newest version), ``nacl/3``,
        ``nacl@champion``, each with or without ``models:/`` before it.
    to : str
        ``ase``: MACE's ASE calculator with the head of the target data (eV, eV/A, eV/A^3).
        ``torch-sim``: a torch-sim model of that head alone.
    device : str, optional
        Where to compute; default: a CUDA GPU where there is one, else the CPU.
    dtype : str
        ``float64`` or ``float32``.
    root : path, optional
        Project whose embedded store to use; default: the one around the working directory.

    Raises
    ------
    RetemperError
        An unknown name or version, a device that is not there, or weights whose sha256 is not the
        registered one: those are not opened.
    """
    if to not in TARGETS:
        raise unknown("kind of model", to, TARGETS)
    project = None if root is None else Path(root).resolve()
    with store_errors(project):
        client = existing_store(project)
        version = resolve(client, name_or_uri)
        with tempfile.TemporaryDirectory() as folder:
            path = attachments.weights(client, project, version, Path(folder))
            place = best_device(device)
            if to == "torch-sim":
                from retemper.registry.export import single_head, torch_sim_model

                one = single_head(path, str(version.tags.get("head")), Path(folder) / "single.model")
                return torch_sim_model(one, place, dtype)
            processes.import_mace()
            from retemper.registry.served_model import calculator

            try:
                return calculator(path, version.tags["sha256"], str(version.tags.get("head")), place, dtype)
            except ValueError as error:
                raise RetemperError(
                    f"Version {version.version} of {version.name} cannot be loaded: {error}.", fix="register it again"
                ) from error


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


def best_device(asked: str | None) -> str:
    """`asked`, or the fastest device that computes in double precision."""
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise RetemperError(
            f"Device {asked!r} is not there: {str(error).splitlines()[0]}", fix="device='cpu', or leave it out"
        ) from error
    return asked


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
