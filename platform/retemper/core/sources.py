"""The package's own code as an identity: by module, what its statements are. Another one may mean other numbers."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = "retemper."
ERRORS = frozenset({"RetemperError", "unknown"})  # their arguments are words for a person


def closure(roots: Iterable[str], followed: Callable[[str], bool]) -> list[str]:
    """Names of `roots` and of all modules that they import, directly or not, as far as `followed` says.

    Imports within functions count; what is no module with a source file is left out.
    """
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in seen and _file(name) is not None:
            seen.add(name)
            waiting += [imported for imported in imports(name) if followed(imported)]
    return sorted(seen)


def exists(module: str) -> bool:
    """Whether a name is a module with a source file."""
    return _file(module) is not None


def statements(module: str) -> str:
    """First 16 hex digits of the sha256 of a module's statements.

    Comments, docstrings, formatting, lines that only print or log and the words of errors do not count. The hash is
    the same under every version of Python that can read the module.
    """
    return _read(module)[0]


def imports(module: str) -> tuple[str, ...]:
    """Names that a module imports, in full; of ``from a import b`` both ``a`` and ``a.b``, which may be no module."""
    return _read(module)[1]


def _read(module: str) -> tuple[str, tuple[str, ...]]:
    path = _file(module)
    assert path is not None, module
    status = path.stat()
    return _parse(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _parse(path: Path, mtime: int, size: int) -> tuple[str, tuple[str, ...]]:
    """`mtime` and `size` are there for the cache's key."""
    tree = ast.parse(path.read_bytes())
    total = hashlib.sha256()
    for part in _parts(tree):
        total.update(part.encode() + b"\0")
    return total.hexdigest()[:16], tuple(_imports(tree))


@lru_cache(maxsize=4096)
def _file(module: str) -> Path | None:
    """Source of a module, which is not imported; `None` where the name is none (a function imported from one)."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.has_location else None
    for folder in spec.submodule_search_locations or ():
        for path in (Path(folder, *rest[:-1], f"{rest[-1]}.py"), Path(folder, *rest, "__init__.py")):
            if path.is_file():
                return path
    return None


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _parts(node: object) -> Iterator[str]:
    """What a tree consists of; fields that are empty are left out, as newer versions of Python add some."""
    if isinstance(node, list):
        for element in node:
            if not _prints(element):
                yield from _parts(element)
    elif not isinstance(node, ast.AST):
        yield repr(node)
    else:
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if name == "body" and _has_docstring(node):
                value = value[1:]
            if name != "func" and isinstance(node, ast.Call) and _callee(node) in ERRORS:
                continue
            if value is not None and value != []:
                yield f"{name}="
                yield from _parts(value)
        yield ")"


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


def _prints(node: object) -> bool:
    """Whether a statement only says something: ``print(...)``, ``log.info(...)``."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    called = node.value.func
    logs = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "log"
    return logs or _callee(node.value) == "print"


def _callee(call: ast.Call) -> str | None:
    return call.func.id if isinstance(call.func, ast.Name) else None
