"""The files that retemper gives to a project, as they stand in one."""

from __future__ import annotations

import yaml

from retemper.config.foundations import CATALOGUE
from retemper.core import template
from retemper.core.template import template_root


def machinery(*, mini: bool) -> dict[str, bytes]:
    """Content of every file by path: stages, strategies, settings of DVC and git; with `mini` its foundation."""
    paths = [*template.MACHINERY, *(template.MINI if mini else ())]
    return {name: _content(name, mini) for name in template.files(*paths)}


def example() -> dict[str, bytes]:
    """Content of the files of the embedded example: settings and data."""
    return {name: _content(name, True) for name in template.files(*template.EXAMPLE)}


def _content(name: str, mini: bool) -> bytes:
    content = (template_root() / name).read_bytes()
    if name == str(CATALOGUE):
        return _catalogue(content.decode(), mini).encode()
    if name in (".rayignore", "pipelines/ray-job.yaml"):  # in a clone the package's code travels with the job
        return "".join(line for line in content.decode().splitlines(True) if "/platform" not in line).encode()
    return content


def _catalogue(text: str, mini: bool) -> str:
    """The project's catalogue of foundations: its explanation, and the entry of `mini` where that is there."""
    explanation, *entries = text.strip().split("\n\n")
    return "\n\n".join([explanation, *(entry for entry in entries if mini and "mini" in yaml.safe_load(entry))]) + "\n"
