"""Fingerprint of the code that computes a number: another one may mean another number."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path

from retemper.files import digest
from retemper.robustness import calculators

FOLLOWED = "retemper.robustness."
# Modules that carry numbers without deciding them, or whose part stands in a task's arguments.
CARRIERS = frozenset(f"{FOLLOWED}{name}" for name in ("calculators", "context", "engine", "outcome", "stats", "units"))


@lru_cache
def fingerprint(module: str) -> str:
    """Hash of a module's statements and of those of the suite's modules that it imports, whole.

    Comments, docstrings and formatting do not count.
    """
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        tree = _statements(name)
        if tree is None:
            continue
        seen[name] = ast.dump(tree)
        waiting += [used for used in _imports(tree) if used.startswith(FOLLOWED) and used not in CARRIERS]
    limits = [calculators.MIN_VOLUME, calculators.SMALLEST_HEIGHT]  # of cells that are computed at all
    return digest([sorted(seen.items()), limits])


def _statements(name: str) -> ast.Module | None:
    """A module without docstrings; `None` where the name is none (a function imported from one)."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    if found is None or found.origin is None:
        return None
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


def _imports(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module + ".", *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name.removesuffix(".") for name in found]
