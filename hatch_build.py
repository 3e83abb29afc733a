"""Puts the template of a project into wheels, which have no repository around them: `retemper.core.template`."""

from __future__ import annotations

import runpy
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TemplateHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version`: standard or editable."""
        if version == "editable":
            return
        template = runpy.run_path(f"{self.root}/platform/retemper/core/template.py")
        names = ("MACHINERY", "MINI", "EXAMPLE", "SYSTEMS")
        for file in template["files"](*(path for name in names for path in template[name])):
            build_data["force_include"][f"{self.root}/{file}"] = f"retemper/template/{file}"
