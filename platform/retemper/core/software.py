"""What outside of retemper decides a calculator's numbers: packages, files, programs. Part of the identity of results.

Every function gives plain data for `retemper.core.files.digest`. What a program or a package reads from places that
nobody names (its own data folder, weights that it downloads) is not seen.
"""

from __future__ import annotations

import functools
import glob
import importlib.metadata
import inspect
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retemper.core.files import sha256

WRITTEN = (  # keywords of calculators that name a file to write
    *("txt", "log", "logfile", "log_file", "out", "outfile", "out_file", "output", "output_file"),
    *("stdout", "stderr", "trajectory", "directory", "label", "restart"),
)


Ingredients = Mapping[str, "str | Ingredients"]  # versions and hashes by name, for `digest`


def packages(*names: str) -> dict[str, str]:
    """Version of the distribution that provides each top-level module; nothing for one that none provides."""
    providers = _providers()
    return {
        distribution: importlib.metadata.version(distribution)
        for name in names
        for distribution in providers.get(name, ())
    }


@functools.lru_cache
def _providers() -> Mapping[str, list[str]]:
    return {
        name: sorted(set(distributions)) for name, distributions in importlib.metadata.packages_distributions().items()
    }


def classes(kind: type) -> Ingredients:
    """Distributions and source files of a class and of all that it inherits from."""
    modules = sorted({base.__module__ for base in kind.__mro__} - sys.stdlib_module_names)
    sources = [getattr(sys.modules[name], "__file__", None) for name in modules]
    return {
        "packages": packages(*(name.partition(".")[0] for name in modules)),
        "sources": {name: content(path) for name, path in zip(modules, sources, strict=True) if path},
    }


def source_of(function: Any) -> str:
    """Hash of the file that defines a function."""
    path = inspect.getsourcefile(function)
    return content(path) if path else ""


def files(value: Any) -> dict[str, str]:
    """Content of every file, and of those in every folder, that texts in `value` name; lists and dicts are searched.

    A text with wildcards (``models/*.model``) names what it matches. A keyword of `WRITTEN` names what a calculator
    writes, and is left out.
    """
    hashes = {}
    for text in _texts(value):
        path = Path(text)
        if path.is_file():
            hashes[text] = content(path)
        elif text.strip() not in ("", ".") and path.is_dir():
            hashes |= {str(file): content(file) for file in sorted(path.rglob("*")) if file.is_file()}
        elif glob.has_magic(text):
            hashes |= {file: content(Path(file)) for file in sorted(glob.glob(text)) if Path(file).is_file()}
    return hashes


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "\n" not in value and "\0" not in value and len(value) < 4096:
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if str(key).lower() not in WRITTEN:
                yield from _texts(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _texts(part)


def program(command: str) -> dict[str, str]:
    """Content of the programs and scripts that a command line names, as far as they are on this machine."""
    hashes = {}
    for word in shlex.split(command):
        path = shutil.which(word) or (word if Path(word).is_file() else None)
        if path:
            hashes[word] = content(path)
    return hashes


def content(path: str | Path) -> str:
    """Hash of a file's bytes; an unchanged file is read once."""
    real = Path(path).resolve()
    status = real.stat()
    return _content(real, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _content(path: Path, mtime: int, size: int) -> str:
    """`mtime` and `size` are there for the cache's key."""
    return sha256(path)
