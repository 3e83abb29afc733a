"""Model files: ``*.safetensors`` with a description, which execute nothing, and pickles, which can execute anything.

What retemper writes is of the first kind: one file, tensors with the description of the model in its header
(`retemper.models.description`). Foundations and models of other programs are pickles (``*.model``): those are opened
after their sha256 was compared with one that does not lie beside them, or because someone said that they trust them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.models import description as described
from retemper.models import library

if TYPE_CHECKING:
    import torch

KEY = "retemper"  # of the description in the header
PICKLE = b"PK"  # how the archives begin that torch writes
LONGEST_HEADER = 100_000_000  # bytes, as the format allows


def read(path: str | Path, device: str = "cpu") -> torch.nn.Module:
    """The model of a file that `write` wrote, in its own precision. Nothing in the file is executed.

    Raises
    ------
    RetemperError
        Another kind of file, a description that is not one, or tensors that are not those that were written.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RetemperError(f"{path} cannot be read: {error.strerror}.", fix="check the path") from error
    return from_bytes(content, str(path)).to(device)


def from_bytes(content: bytes, origin: str) -> torch.nn.Module:
    """`read` of what is in memory already, for who compared its sha256; `origin` is for messages."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    description = description_of(content, origin)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RetemperError(
            f"{origin} is damaged: {error}.", expected="a whole file", fix="restore the file, or make it again"
        ) from error
    if (got := _digest(tensors)) != description.tensors_sha256:
        raise RetemperError(
            f"{origin} is damaged: its tensors are not those that were written.",
            expected=f"sha256 {description.tensors_sha256}",
            got=f"sha256 {got}",
            fix="restore the file, or make it again",
        )
    return described.build(description, tensors, origin)


def loads(content: bytes, origin: str) -> torch.nn.Module:
    """`load` of what is in memory, for who compared its sha256 with one that does not lie beside it."""
    if content[:2] != PICKLE:
        return from_bytes(content, origin)
    library.import_mace()  # before torch.load: it allows pickled modules
    import torch

    model: torch.nn.Module = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    return model


def description_of(content: bytes, origin: str) -> described.Description:
    """The description in the header of a file."""
    expected = f"a model that retemper wrote (*{weight_files.SUFFIX})"
    if len(content) < 8:
        raise RetemperError(f"{origin} is no model file.", expected=expected, got=f"{len(content)} bytes")
    length = struct.unpack("<Q", content[:8])[0]
    if length > min(LONGEST_HEADER, len(content) - 8):
        looks = (
            "a pickle or an archive" if content[:2] in (b"PK", b"\x80\x02") else "a file of another kind, or cut off"
        )
        raise RetemperError(f"{origin} is no model file and was not opened.", expected=expected, got=looks)
    try:
        header = json.loads(content[8 : 8 + length])
        text = header["__metadata__"][KEY]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RetemperError(
            f"{origin} has no description of a model.", expected=expected, got="tensors without one"
        ) from None
    return described.parse(str(text), origin)


# ------------------------------------------------------------------ pickles


def load(path: str | Path, device: str = "cpu") -> torch.nn.Module:
    """The model of a file of either kind, in its own precision; a pickle is one that was `admitted`, or is your own."""
    if weight_files.executes_nothing(path):
        return read(path, device)
    library.import_mace()  # before torch.load: it allows pickled modules
    import torch

    model: torch.nn.Module = torch.load(path, map_location=device, weights_only=False)
    return model


@contextlib.contextmanager
def pickled(path: str | Path) -> Iterator[Path]:
    """The same model as a pickle, for programs that read nothing else; for as long as the block runs.

    A file that is one already is given as it is.
    """
    if not weight_files.executes_nothing(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.model"
        write_pickle(read(path), out)
        yield out


def write_pickle(model: torch.nn.Module, path: Path) -> None:
    """A ``*.model`` as MACE's own programs write and read it."""
    import torch

    with atomic_write(path) as temporary:
        torch.save(model, temporary)


# ------------------------------------------------------------------ the twin


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names, types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
