"""Files of weights before they are opened: which execute nothing, which are pickles, and whose word a pickle needs."""

from __future__ import annotations

from pathlib import Path

from retemper.core.errors import RetemperError
from retemper.core.files import sha256

NAME = "model.safetensors"  # of a trained model, in its folder
SUFFIX = ".safetensors"


def executes_nothing(path: str | Path) -> bool:
    """Whether the file is of the kind that executes nothing, by its name; such files are never unpickled."""
    return Path(path).suffix == SUFFIX


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
