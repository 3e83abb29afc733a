"""Explorers, uncertainties, selectors and oracles by name: a file's stem is its plugin's name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from retemper.config.settings import Plugin, parse
from retemper.core.errors import unknown

KINDS = {"explore": "explorer", "uncertainty": "uncertainty", "select": "selector", "oracles": "oracle"}


def names(kind: str) -> list[str]:
    """Plugins of a kind: the modules in the folder of that name."""
    package = importlib.import_module(f"retemper.active.{kind}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load(kind: str, plugin: Plugin) -> tuple[ModuleType, Any]:
    """Module and parsed options of a plugin.

    Raises
    ------
    RetemperError
        An unknown name or option.
    """
    available = names(kind)
    if plugin.name not in available:
        raise unknown(KINDS[kind], plugin.name, available)
    module = importlib.import_module(f"retemper.active.{kind}.{plugin.name}")
    return module, parse(module.Options, plugin.options, f"params.yaml (options of {KINDS[kind]} {plugin.name})")
