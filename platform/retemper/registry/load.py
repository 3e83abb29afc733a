"""A registered model by its name: as version, as ASE calculator, as torch-sim model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from retemper.config.foundations import SUFFIXES
from retemper.core import files
from retemper.core.errors import RetemperError, unknown
from retemper.models import library, mace
from retemper.registry import attachments
from retemper.registry.client import open_registry
from retemper.registry.versions import resolve

TARGETS = ("ase", "torch-sim")


def load(
    name_or_uri: str,
    *,
    to: str = "ase",
    device: str | None = None,
    dtype: str = "float64",
    head: str | None = None,
    root: str | Path | None = None,
) -> Any:
    """A registered model, or the model of a file, ready to use.

    Parameters
    ----------
    name_or_uri : str
        ``nacl`` (the champion, else the candidate, else the newest version), ``nacl/3``,
        ``nacl@champion``, each with or without ``models:/`` before it; or a model file, by its suffix.
    to : str
        ``ase``: MACE's ASE calculator (eV, eV/A, eV/A^3).
        ``torch-sim``: a torch-sim model of one head alone.
    device : str, optional
        Where to compute; default: a CUDA GPU where there is one, else the CPU.
    dtype : str
        ``float64`` or ``float32``.
    head : str, optional
        One of the model's, such as ``pt_head``; default: the one that learned the target.
    root : path, optional
        Project whose embedded store to use; default: the one around the working directory.

    Raises
    ------
    RetemperError
        An unknown name, version or head, a device that is not there, or weights whose sha256 is not the
        registered one: those are not opened.
    """
    if to not in TARGETS:
        raise unknown("kind of model", to, TARGETS)
    if name_or_uri.endswith(SUFFIXES):
        path = Path(name_or_uri)
        chosen = mace.pick_head(path, head)
        return _ready(path, None, chosen, to, best_device(device), dtype)
    project = None if root is None else Path(root).resolve()
    with open_registry(project, existing=True) as registry:
        version = resolve(registry, name_or_uri)
        with tempfile.TemporaryDirectory() as folder:
            path = attachments.weights(registry, version, Path(folder))
            chosen = str(version.tags.get("head")) if head is None else mace.pick_head(path, head)
            try:
                return _ready(path, version.tags["sha256"], chosen, to, best_device(device), dtype)
            except ValueError as error:
                raise RetemperError(
                    f"Version {version.number} of {version.system} cannot be loaded: {error}.", fix="register it again"
                ) from error


def _ready(path: Path, sha256: str | None, head: str, to: str, device: str, dtype: str) -> Any:
    if to == "torch-sim":
        from retemper.models.convert import single_head, torch_sim_model

        with tempfile.TemporaryDirectory() as folder:
            return torch_sim_model(single_head(path, head, Path(folder) / "single.model"), device, dtype)
    library.import_mace()
    from retemper.registry.served_model import calculator

    return calculator(path, sha256 or files.sha256(path), head, device, dtype)


def best_device(device: str | None) -> str:
    """`device`, or the fastest device that computes in double precision."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RetemperError(
            f"Device {device!r} is not there: {str(error).splitlines()[0]}", fix="device='cpu', or leave it out"
        ) from error
    return device
