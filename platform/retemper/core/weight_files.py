"""Files of weights before they are opened: which execute nothing, which are pickles, and whose word a pickle needs."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

from retemper.core.errors import RetemperError
from retemper.core.files import sha256

NAME = "model.safetensors"  # of a trained model, in its folder
SUFFIX = ".safetensors"


def executes_nothing(path: str | Path) -> bool:
    """Whether the file is of the kind that executes nothing, by its name; such files are never unpickled."""
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


def admitted(path: str | Path, sha: str | None = None, trust_pickle: bool = False) -> Path:
    """`path` if it may be opened: it executes nothing, has this sha256, or someone said that they trust it.

    Parameters
    ----------
    sha
        What the file's sha256 has to be, from a place that is not beside the file.
    trust_pickle
        Someone said that what is in the file may run on this machine.

    Raises
    ------
    RetemperError
        A missing file, another sha256, or a pickle that no one vouches for: none of them was opened.
    """
    path = Path(path)
    if not path.is_file():
        raise RetemperError(f"Model {path} does not exist.", fix="check the path")
    if sha is not None:
        got = sha256(path)
        if got != sha.lower():
            raise RetemperError(
                f"{path} is not the file that was asked for, and was not opened.",
                expected=f"sha256 {sha}",
                got=f"sha256 {got}",
                fix="fetch the file again; give its own sha256 only if you know where it comes from",
            )
    elif not executes_nothing(path) and not trust_pickle:
        raise RetemperError(
            f"{path} is a pickle: to open it is to run what is in it. It was not opened.",
            expected=f"a file that executes nothing (*{SUFFIX}), or a word that this one is trusted",
            got=f"sha256 {sha256(path)}",
            fix="--sha256 with the hash that its author gives; or --trust-pickle if you made the file yourself",
        )
    return path
