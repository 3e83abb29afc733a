"""The catalogue of foundation models, ``foundations/foundations.yaml``.

An entry is either embedded (``file`` with its ``sha256``) or named: loaded through
MACE's own loaders (``loader: mace_mp|mace_off|mace_omol`` and ``model``), which
download the weights on first use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from retemper.errors import RetemperError, unknown
from retemper.files import project_root, sha256
from retemper.setting_errors import in_file
from retemper.settings import Section, parse_named
from retemper.strict_yaml import Location, read_yaml

CATALOGUE = Path("foundations/foundations.yaml")


class Foundation(Section):
    """One entry. `name` is its key in the catalogue."""

    name: str
    about: str
    level_of_theory: str
    licence: str
    citation: str
    elements: str | None = None  # "H Li B ..." or a description such as "89 elements"
    file: str | None = None  # embedded model, relative to the project root
    sha256: str | None = None  # of the file; checked before it is unpickled
    loader: Literal["mace_mp", "mace_off", "mace_omol"] | None = None
    model: str | None = None  # name that the loader knows
    head: str | None = None  # head to use of a multihead model
    pool: str | None = None  # pretraining structures with labels: default replay pool
    retention: str | None = None  # held-out structures of the pretraining distribution


def catalogue(root: Path | None = None) -> dict[str, Foundation]:
    """All entries by name."""
    path = (root or project_root()) / CATALOGUE
    return {name: _entry(path, name, content) for name, content in read_yaml(path).items()}


def _entry(path: Path, name: str, content: Any) -> Foundation:
    def place(location: Location) -> str:
        return in_file(path, str(CATALOGUE))((name, *location))

    return parse_named(Foundation, name, content, place)


def find(name: str, root: Path | None = None) -> Foundation:
    """The entry called `name`; an unknown name lists the options."""
    entries = catalogue(root)
    if name not in entries:
        raise unknown("foundation", name, entries)
    return entries[name]


def weights(foundation: Foundation, root: Path | None = None) -> Path:
    """Path of the weights on this machine, checked.

    Embedded files are checked against their sha256 before anyone unpickles them. Named
    models are downloaded by MACE's loader into MACE's cache; where the entry gives a
    sha256 it is checked too.

    Raises
    ------
    RetemperError
        A missing file, a sha256 that differs, or a download that failed.
    """
    if foundation.file is not None:
        path = (root or project_root()) / foundation.file
        if not path.is_file():
            raise RetemperError(
                f"Foundation {foundation.name}: {path} does not exist.", fix="dvc pull, or git checkout the file"
            )
    else:
        path = _download(foundation)
    if foundation.sha256 is not None:
        got = sha256(path)
        if got != foundation.sha256:
            raise RetemperError(
                f"Foundation {foundation.name}: {path} is not the file of the catalogue. It was not opened.",
                expected=f"sha256 {foundation.sha256}",
                got=f"sha256 {got}",
                fix="restore the file, or update the entry if you trust the new one",
            )
    return path


def _download(foundation: Foundation) -> Path:
    """Fetch a named model with MACE's own download function and return the cached file."""
    from mace.calculators import foundations_models as mace_models

    try:
        if foundation.loader == "mace_mp":
            return Path(mace_models.download_mace_mp_checkpoint(foundation.model))
        if foundation.loader in ("mace_off", "mace_omol"):
            load = getattr(mace_models, foundation.loader)
            model = load(model=foundation.model, device="cpu", return_raw_model=True)
            cache = (
                Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
                / "mace"
                / f"retemper-{foundation.name}.model"
            )
            if not cache.exists():
                import torch

                torch.save(model, cache)
            return cache
    except (OSError, RuntimeError, ValueError) as error:
        raise RetemperError(
            f"Foundation {foundation.name} could not be downloaded: {error}",
            expected="a network connection, or the weights in MACE's cache (~/.cache/mace)",
            fix="download it on a machine with a network and copy it there, or use the embedded foundation",
        ) from error
    raise RetemperError(f"Foundation {foundation.name} names neither a file nor a loader.", fix=f"edit {CATALOGUE}")
