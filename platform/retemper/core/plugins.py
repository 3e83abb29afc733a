"""Plugins: the modules of a package's folder, each named by its file's stem. There are no lists to keep."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from retemper.core.errors import unknown

PACKAGE = Path(__file__).parents[1]


def names(package: str) -> list[str]:
    """Plugins of a package of retemper, such as ``active.oracles``; nothing is imported."""
    paths = PACKAGE.joinpath(*package.split(".")).glob("*.py")
    return sorted(path.stem for path in paths if not path.stem.startswith("_"))


def load(package: str, name: str, kind: str) -> ModuleType:
    """The module of a plugin; `kind` is what the error calls it.

    Raises
    ------
    UnknownNameError
        There is none of this name; the options and the nearest are named.
    """
    if name not in names(package):
        raise unknown(kind, name, names(package))
    return importlib.import_module(f"{PACKAGE.name}.{package}.{name}")
