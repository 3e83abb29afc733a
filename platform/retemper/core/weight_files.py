"""Files of weights before they are opened: of which form, whether whole, and whether they are those that are meant."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

from retemper.core.errors import RetemperError
from retemper.core.files import require_sha256

NAME = "model.safetensors"  # of a trained model, in its folder
SUFFIX = ".safetensors"


def described(path: str | Path) -> bool:
    """Whether the file is of the form that retemper writes, by its name; others are pickles, which are read as data."""
    return Path(path).suffix == SUFFIX


def whole(path: Path) -> bool:
    """Whether a file looks like weights, all of them, without opening it as such: by its own table of contents.

    Files that torch wrote before version 1.6 are plain pickles, of which the beginning alone is looked at.
    """
    with path.open("rb") as file:
        start = file.read(9)
        if start[8:9] == b"{":  # safetensors: length of the description, the description, tensors
            description = file.read(min(int.from_bytes(start[:8], "little"), path.stat().st_size) - 1)
            return _ends(b"{" + description) == path.stat().st_size
    if start[:2] != b"PK":
        return start[:1] == b"\x80"
    try:
        with zipfile.ZipFile(path) as archive:  # its parts may be archives too: the outer one begins with the file
            begins = min((part.header_offset for part in archive.infolist()), default=-1)
            return begins == 0 and archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError):
        return False


def _ends(description: bytes) -> int:
    """Where the file of a safetensors description has to end; -1 where it is none."""
    try:
        parts = [part for name, part in json.loads(description).items() if name != "__metadata__"]
        return 8 + len(description) + max((int(part["data_offsets"][1]) for part in parts), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return -1


def require(path: str | Path, sha: str | None = None) -> Path:
    """`path` if it is there and has this sha256, where one is given.

    Raises
    ------
    RetemperError
        A missing file, or another sha256. The file was not opened.
    """
    path = Path(path)
    if not path.is_file():
        raise RetemperError(f"Model {path} does not exist.", fix="check the path")
    if sha is not None:
        what = f"{path} is not the file that was asked for, and was not opened."
        require_sha256(
            path, sha, what, "fetch the file again; give its own sha256 only if you know where it comes from"
        )
    return path
