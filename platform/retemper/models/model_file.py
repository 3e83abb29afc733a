"""Model files of two kinds, neither of which executes anything here.

What retemper writes is one file, ``*.safetensors``: tensors with the description of the model in its header
(`retemper.models.description`). Foundations and models of other programs are pickles (``*.model``), which are read as
data and built anew (`retemper.models.opening`). Programs that open nothing but pickles get one that was written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.models import building, opening
from retemper.models.description import Description, parse

if TYPE_CHECKING:
    import torch

KEY = "retemper"  # of the description in the header
LONGEST_HEADER = 100_000_000  # bytes, as the format allows


def read(path: str | Path, device: str = "cpu") -> torch.nn.Module:
    """The model of a file that `write` wrote, in its own precision. Nothing in the file is executed.

    Raises
    ------
    RetemperError
        Another kind of file, a description that is not one, or tensors that are not those that were written.
    """
    return from_bytes(content_of(path), str(path)).to(device)


def content_of(path: str | Path) -> bytes:
    """The bytes of a file."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RetemperError(f"{path} cannot be read: {error.strerror}.", fix="check the path") from error


def from_bytes(content: bytes, origin: str) -> torch.nn.Module:
    """`read` of what is in memory already, for who compared its sha256; `origin` is for messages."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    description = description_of(content, origin)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise damaged(origin, error) from error
    if (got := _digest(tensors)) != description.tensors_sha256:
        raise RetemperError(
            f"{origin} is damaged: its tensors are not those that were written.",
            expected=f"sha256 {description.tensors_sha256}",
            got=f"sha256 {got}",
            fix="restore the file, or make it again",
        )
    return building.build(description, tensors, origin)


def damaged(origin: str, error: Exception) -> RetemperError:
    """For a file that the reader of tensors does not read."""
    return RetemperError(
        f"{origin} is damaged: {error}.", expected="a whole file", fix="restore the file, or make it again"
    )


def is_pickle(content: bytes) -> bool:
    """Whether the bytes are not those of a file with a description."""
    return content[8:9] != b"{"


def loads(content: bytes, origin: str) -> torch.nn.Module:
    """`load` of what is in memory, for who compared its sha256; `origin` is for messages."""
    return opening.open_model(content, origin) if is_pickle(content) else from_bytes(content, origin)


def description_of(content: bytes, origin: str) -> Description:
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
    return parse(str(text), origin)


# ------------------------------------------------------------------ both kinds


def load(path: str | Path, device: str = "cpu") -> torch.nn.Module:
    """The model of a file of either kind, in its own precision, in evaluation mode. Nothing in the file is executed.

    Raises
    ------
    RetemperError
        A file of another kind, a damaged one, or a model that today's MACE cannot build (`opening.open_model`).
    """
    if weight_files.described(path):
        return read(path, device)
    return loads(content_of(path), str(path)).to(device)


@contextlib.contextmanager
def pickled(path: str | Path) -> Iterator[Path]:
    """The model of a file as a pickle that is written here, for programs that open nothing else, within the block."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.model"
        write_pickle(load(path), out)
        yield out


def write_pickle(model: torch.nn.Module, path: Path) -> None:
    """A ``*.model`` as MACE's own programs write and read it."""
    import torch

    with atomic_write(path) as temporary:
        torch.save(model, temporary)


# ------------------------------------------------------------------ the twin


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names, types, shapes and values."""
    checksum = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        checksum.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        checksum.update(tensor.contiguous().numpy().tobytes())
    return checksum.hexdigest()
