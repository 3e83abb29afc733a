"""An ASE calculator as a user writes it, ``ase:package.module:Class(keyword=value)``, and what its numbers rest on."""

from __future__ import annotations

import ast
import functools
import importlib
from typing import Any

from retemper import software
from retemper.errors import RetemperError

PREFIX = "ase:"


def create(source: str) -> Any:
    """ASE calculator of ``package.module:Class(keyword=value, ...)``; keywords are Python literals."""
    factory, options = _parsed(source)
    try:
        return factory(**options)
    except (ValueError, ImportError, AttributeError, TypeError) as error:
        raise _cannot_be_made(source, error) from error


def ingredients(source: str) -> dict[str, Any]:
    """What decides the numbers of a calculator beside the text that makes it: packages, sources, files in keywords."""
    factory, options = _parsed(source)
    return {**_made_of(source), "factory": software.source_of(factory), "files": software.files(options)}


@functools.lru_cache(maxsize=16)
def _made_of(source: str) -> dict[str, Any]:
    """Packages and sources of the calculator's classes; one that a function makes is made to see them."""
    factory, _ = _parsed(source)
    return software.classes(factory if isinstance(factory, type) else type(create(source)))


def _parsed(source: str) -> tuple[Any, dict[str, Any]]:
    """The class or function that `source` names, and its keywords."""
    module, _, call = source.partition(":")
    try:
        node = ast.parse(call or "missing", mode="eval").body
        options: dict[str, Any] = {}
        if isinstance(node, ast.Call):
            if node.args:
                raise ValueError("only keyword arguments")
            options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            node = node.func
        if not isinstance(node, ast.Name) or not call:
            raise ValueError("no class")
        return getattr(importlib.import_module(module), node.id), options
    except (SyntaxError, ValueError, ImportError, AttributeError) as error:
        raise _cannot_be_made(source, error) from error


def _cannot_be_made(source: str, error: Exception) -> RetemperError:
    return RetemperError(
        f"The calculator {PREFIX}{source} cannot be made: {error}.",
        expected="ase:package.module:Class(keyword=value), for example ase:ase.calculators.emt:EMT()",
        fix="check the spelling, and that the package is installed",
    )
