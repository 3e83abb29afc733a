"""Kept results that are checked when they are read, in formats that execute nothing.

Whatever is kept to be found again (``.cache``, ``studies/results``) carries a sha256 of its content together with the
key that it is found by: what is damaged, cut off or belongs elsewhere is noticed. It is put aside under a name that
ends in ``.corrupt``, the person is told, and it is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write, sha256
from retemper.core.output import log

FORMAT = 1  # of records; others are made again
SEAL = "seal"  # the entry of a JSON file that holds its checksum
FOLDER_SEAL = "sealed.json"  # in a folder: checksums of its files
ARRAY, SCALAR, TUPLE = 1, 2, 3  # codes of what msgpack itself does not know
DAMAGED, ELSEWHERE = "it is damaged", "it belongs to something else"


class _BrokenError(Exception):
    """What is kept cannot be used; the text says why."""


def put_aside(path: Path, reason: str, then: str = "made again") -> None:
    """Rename a file or folder to ``<name>.corrupt`` (``.corrupt-2``, ...), and say so, and what comes `then`."""
    aside, number = path.with_name(f"{path.name}.corrupt"), 2
    while os.path.lexists(aside):
        aside, number = path.with_name(f"{path.name}.corrupt-{number}"), number + 1
    try:
        os.rename(path, aside)
    except FileNotFoundError:  # another process has just done so
        return
    except OSError as error:
        raise RetemperError(
            f"{path} cannot be used ({reason}) and cannot be put aside: {error.strerror}.",
            fix=f"make {path.parent} your own and writable, or remove that file",
        ) from error
    log.warning(f"  {path}: {reason}; put aside as {aside.name}, {then}")


def make_folder(folder: Path) -> None:
    """Make a folder, with its parents; what lies in its place is put aside."""
    if os.path.lexists(folder) and not folder.is_dir():
        put_aside(folder, "it is no folder")
    with _writable(folder / "x"):
        folder.mkdir(parents=True, exist_ok=True)


def plain_files(folder: Path, names: Iterable[str]) -> None:
    """Put aside what is there under `names` and is no file of its own: a link would be followed in writing."""
    for path in (folder / name for name in names):
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            put_aside(path, "it is no plain file")


# ------------------------------------------------------------------ records of numbers and arrays


def write(path: Path, key: str, content: Any) -> None:
    """Keep `content` under `key`, whole or not at all.

    Parameters
    ----------
    content
        Numbers, text, bytes, None, NumPy arrays, and lists, tuples and dicts of these. It is read back bit by bit
        as it was, types of NumPy's numbers included.

    Raises
    ------
    RetemperError
        Something else in it, or a full disk.
    """
    try:
        body = msgpack.packb(content, default=_pack, strict_types=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise RetemperError(
            f"A result cannot be kept: {error}.", expected="numbers, text, arrays, and lists and dicts of these"
        ) from error
    header = json.dumps({"format": FORMAT, "key": key, "sha256": _hash(key, body)}).encode()
    with _writable(path), atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(header + b"\n")
        file.write(body)


def read(path: Path, key: str) -> Any:
    """What `write` kept under `key`; `None` where there is nothing, or nothing sound (which is put aside)."""

    def parse(data: bytes) -> Any:
        line, _, body = data.partition(b"\n")
        header = json.loads(line)
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise _BrokenError("it is of another version, or damaged")
        if header.get("key") != key:
            raise _BrokenError(ELSEWHERE)
        if header.get("sha256") != _hash(key, body):
            raise _BrokenError(DAMAGED)
        return msgpack.unpackb(body, ext_hook=_unpack, strict_map_key=False)

    return _sound(path, parse)


def _hash(key: str, body: bytes) -> str:
    total = hashlib.sha256(key.encode() + b"\0")
    total.update(body)
    return total.hexdigest()


def _pack(value: Any) -> msgpack.ExtType:
    """What msgpack does not know: arrays, numbers of NumPy, tuples; other mappings and numbers as Python's."""
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        array = np.asarray(value)
        content = msgpack.packb([array.dtype.str, list(array.shape), array.tobytes()])
        return msgpack.ExtType(ARRAY if isinstance(value, np.ndarray) else SCALAR, content)
    if isinstance(value, tuple):
        return msgpack.ExtType(TUPLE, msgpack.packb(list(value), default=_pack, strict_types=True))
    if isinstance(value, dict):
        return dict(value)  # type: ignore[return-value]
    raise TypeError(f"{type(value).__name__} is no number, text or array")


def _unpack(code: int, content: bytes) -> Any:
    if code == TUPLE:
        return tuple(msgpack.unpackb(content, ext_hook=_unpack, strict_map_key=False))
    name, shape, data = msgpack.unpackb(content)
    dtype = np.dtype(name)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    array = np.ndarray(shape, dtype, buffer=data).copy()
    return array if code == ARRAY else array[()]


# ------------------------------------------------------------------ JSON


def write_json(path: Path, key: str, content: dict[str, Any]) -> None:
    """Keep `content` as JSON that people can read, with its checksum as the entry ``seal``."""
    text = json.dumps(content, allow_nan=False)
    sealed = {**json.loads(text), SEAL: _seal(key, json.loads(text))}
    with _writable(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(sealed, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, key: str, *, unsealed: bool = False, then: str = "made again") -> Any:
    """What `write_json` kept under `key`, without its checksum; `None` as in `read`.

    `unsealed` takes files without a checksum too, as earlier versions wrote them; `then` as in `put_aside`.
    """

    def parse(data: bytes) -> Any:
        content = json.loads(data)
        if not isinstance(content, dict) or (SEAL not in content and not unsealed):
            raise _BrokenError("it has no checksum: it is damaged, or of an earlier version")
        if SEAL in content and content.pop(SEAL) != _seal(key, content):
            raise _BrokenError(f"{DAMAGED}, or belongs to something else")
        return content

    return _sound(path, parse, then)


def _seal(key: str, content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{key}\0{canonical}".encode()).hexdigest()


# ------------------------------------------------------------------ files and folders of any format


def file(path: Path, key: str, make: Callable[[Path], None]) -> Path:
    """`path` as ``make(temporary path)`` made it for `key`; made where it is not there, or is not what was made.

    Its checksum lies beside it, in ``<name>.seal``.
    """
    record = path.with_name(f"{path.name}.seal")
    recorded = read_json(record, key) if os.path.lexists(path) else None
    if recorded is not None:
        damage = difference(path.parent, recorded["files"])
        if not damage:
            return path
        put_aside(path, damage)
    elif os.path.lexists(path) and not path.is_file():
        put_aside(path, "it is no file")
    with _writable(path), atomic_write(path) as temporary:
        make(temporary)
    write_json(record, key, {"files": hashes(path.parent, [path.name])})
    return path


def seal_folder(folder: Path, key: str, names: Iterable[str]) -> None:
    """Write down the checksums of the files `names` of `folder`."""
    write_json(folder / FOLDER_SEAL, key, {"files": hashes(folder, names)})


def check_folder(folder: Path, key: str) -> bool:
    """Whether a folder is as `seal_folder` left it; one that is not is put aside whole."""
    if not folder.is_dir():
        put_aside(folder, "it is no folder")
        return False
    recorded = read_json(folder / FOLDER_SEAL, key)
    damage = "it has no sound list of checksums" if recorded is None else difference(folder, recorded["files"])
    if damage:
        put_aside(folder, damage)
    return not damage


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Sha256 of files of a folder, by name."""
    return {name: sha256(folder / name) for name in sorted(names)}


def difference(folder: Path, recorded: dict[str, str]) -> str:
    """Which file of a folder is not as `hashes` recorded it, in words; "" where all are."""
    for name, expected in recorded.items():
        path = folder / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            if sha256(path) != expected:
                return f"{name} is damaged, or another one"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


# ------------------------------------------------------------------ reading


def _sound(path: Path, parse: Callable[[bytes], Any], then: str = "made again") -> Any:
    """`parse` of a file's bytes; `None` without a file, and where it cannot be used."""
    try:
        return parse(_bytes(path))
    except FileNotFoundError:
        return None
    except _BrokenError as error:
        reason = str(error)
    except NotADirectoryError:
        path, reason = next(parent for parent in path.parents if parent.exists()), "it is no folder"
    except OSError as error:
        reason = f"it cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException):
        reason = DAMAGED
    put_aside(path, reason, then)
    return None


def _bytes(path: Path) -> bytes:
    """Content of a regular file: a pipe or a device would never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise _BrokenError("it is no file")
    return path.read_bytes()


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """What hinders writing `path` becomes a `RetemperError`; a folder in its place is put aside."""
    if path.is_dir() and not path.is_symlink():
        put_aside(path, "it is a folder")
    try:
        yield
    except OSError as error:
        raise RetemperError(
            f"{path} cannot be written: {error.strerror or error}.",
            fix=f"make {path.parent} a folder of your own with space in it, or remove it",
        ) from error
