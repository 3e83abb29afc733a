"""Explorers, uncertainties, selectors and oracles with their options."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from retemper.config.settings import Plugin, parse
from retemper.core import plugins

KINDS = {"explore": "explorer", "uncertainty": "uncertainty", "select": "selector", "oracles": "oracle"}


def names(kind: str) -> list[str]:
    """Plugins of a kind: the modules in the folder of that name."""
    return plugins.names(f"active.{kind}")


def load(kind: str, plugin: Plugin) -> tuple[ModuleType, Any]:
    """Module and parsed options of a plugin.

    Raises
    ------
    RetemperError
        An unknown name or option.
    """
    module = plugins.load(f"active.{kind}", plugin.name, KINDS[kind])
    return module, parse(module.Options, plugin.options, f"params.yaml (options of {KINDS[kind]} {plugin.name})")
