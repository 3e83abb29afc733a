"""Registered versions by name: ``name/version``, ``name@alias`` or a ``models:/`` address."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from retemper.core import weight_files
from retemper.core.errors import unknown
from retemper.core.files import atomic_write
from retemper.registry import artifact, attachments
from retemper.registry.aliases import CHAMPION
from retemper.registry.client import Registry, Version, open_registry

CANDIDATE = "candidate"  # alias of the version to look at first


def find(name_or_uri: str, root: Path) -> Version:
    """The version that a name means, in the registry of the project at `root`."""
    with open_registry(root, existing=True) as registry:
        return resolve(registry, name_or_uri)


def weights(name_or_uri: str, folder: Path, root: Path) -> Path:
    """Model file of a registered model, named as for `load`, below `folder` under its sha256, which is checked."""
    with open_registry(root, existing=True) as registry:
        version = resolve(registry, name_or_uri)
        suffix = weight_files.SUFFIX if artifact.TAG in version.tags else ".model"
        place = folder / f"{version.sha256[:16]}{suffix}"
        with tempfile.TemporaryDirectory() as temporary, atomic_write(place) as copy:
            shutil.copyfile(attachments.weights(registry, version, Path(temporary)), copy)
    return place


def resolve(registry: Registry, name_or_uri: str) -> Version:
    """The version that a name means."""
    name = name_or_uri.removeprefix("models:/")
    system, _, alias = name.partition("@")
    system, _, number = system.partition("/")
    if not number and alias.isdecimal():  # nacl@4: MLflow itself takes such an alias for nothing else
        alias, number = "", alias
    versions = {version.number: version for version in registry.versions(system)}
    if not versions:
        raise unknown("registered model", system, registry.systems())
    if number:
        if number not in versions:
            raise unknown(f"version of {system}", number, list(versions))
        return versions[number]
    aliases = registry.entry(system).aliases
    if alias and alias not in aliases:
        raise unknown(f"alias of {system}", alias, aliases)
    target = aliases.get(alias) if alias else aliases.get(CHAMPION, aliases.get(CANDIDATE))
    return versions[target] if target in versions else next(iter(versions.values()))
